
Ø
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
value (Rvalue"M
TailRequest
node (	Rnode
epoch (Repoch
after (Rafter"p
	TailEvent
clock_ms (RclockMs4
records (2.patronus.agent.v1.RecordsRrecords
tick (Rtick2¨
AgentK
Identify".patronus.agent.v1.IdentifyRequest.patronus.agent.v1.Identity>
Exchange.patronus.agent.v1.Terms.patronus.agent.v1.TermsJ
Records!.patronus.agent.v1.RecordsRequest.patronus.agent.v1.Records0F
Tail.patronus.agent.v1.TailRequest.patronus.agent.v1.TailEvent0bproto3