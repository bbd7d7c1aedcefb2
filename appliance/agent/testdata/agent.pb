
î

agent.protopatronus.agent.v1"
IdentifyRequest"©
Identity
fabric (	Rfabric
site (	Rsite
node (	Rnode
epoch (Repoch
version (	Rversion
clock_ms (RclockMs
head (Rhead"@
Terms
signing_key (R
signingKey
signed (Rsigned"d
RecordsRequest
node (	Rnode
epoch (Repoch
first (Rfirst
last (Rlast"‚
Records
first (Rfirst
last (Rlast3
records (2.patronus.agent.v1.RecordRrecords
damaged (Rdamaged"V
Record
seq (Rseq
kind (Rkind
key (Rkey
value (Rvalue"h
TailRequest
node (	Rnode
epoch (Repoch
after (Rafter
since_ms (RsinceMs"¦
	TailEvent
clock_ms (RclockMs4
records (2.patronus.agent.v1.RecordsRrecords+
tick (2.patronus.agent.v1.TickRtick
	caught_up (RcaughtUp"v
Tick
site (	Rsite
at_ms (RatMs1
series (2.patronus.agent.v1.SeriesRseries
rest (Rrest"J
Series
path (	Rpath
metrics (Rmetrics
rows (Rrows2¨
AgentK
Identify".patronus.agent.v1.IdentifyRequest.patronus.agent.v1.Identity>
Exchange.patronus.agent.v1.Terms.patronus.agent.v1.TermsJ
Records!.patronus.agent.v1.RecordsRequest.patronus.agent.v1.Records0F
Tail.patronus.agent.v1.TailRequest.patronus.agent.v1.TailEvent0bproto3