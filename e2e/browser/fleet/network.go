package main

import (
	"fmt"
	"net/netip"
	"time"

	"patronus/configs"
)

// attack is what the hostile world says wherever a text is free.
const attack = `<img src=x onerror="window.attacked=1"><script>window.attacked=1</script>{{7*7}}javascript:window.attacked=1"'><svg/onload=window.attacked=1>`

const webPolicy = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: backend-ingress-policy
  namespace: default
spec:
  podSelector:
    matchLabels:
      app: backend
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: frontend
    ports:
    - protocol: TCP
      port: 8080
`

const databasePolicy = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: database-egress-policy
  namespace: default
spec:
  podSelector:
    matchLabels:
      app: database
  policyTypes: [Egress]
  egress:
  - to:
    - ipBlock:
        cidr: 10.0.0.0/8
        except:
        - 10.99.0.0/16
    ports:
    - protocol: TCP
      port: 5432
`

const sshPolicy = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: block-ssh
  namespace: default
spec:
  podSelector:
    matchLabels:
      tier: branch
  policyTypes: [Ingress]
  ingress:
  - ports:
    - protocol: TCP
      port: 443
    - protocol: UDP
      port: 5060
`

// regions of the thousand sites, with the cities that name them.
func regions() []struct{ name, city string } {
	return []struct{ name, city string }{
		{"emea", "berlin"},
		{"emea-south", "milan"},
		{"nordics", "oslo"},
		{"uk", "leeds"},
		{"us-east", "boston"},
		{"us-west", "seattle"},
		{"latam", "bogota"},
		{"india", "pune"},
		{"japan", "osaka"},
		{"oceania", "perth"},
		{"africa", "nairobi"},
		{"gulf", "dubai"},
	}
}

func networkOf(world string) *configs.Network {
	n := &configs.Network{Fabric: "acme", Topology: configs.Topology{Mode: configs.FullMesh}}
	if world == "empty" || world == "fresh" {
		// A standalone appliance is a fabric of one.
		n.Sites = []configs.NetworkSite{site(0, "hq", "emea", true)}
		return n
	}
	n.Namespaces = []configs.Namespace{{Name: "default", Labels: map[string]string{"team": "core"}}}
	n.Policies = []configs.Policy{{Spec: webPolicy}, {Spec: databasePolicy, Mode: configs.PolicyDisabled}, {Spec: sshPolicy, Mode: configs.PolicyStaged}}
	n.Classes = []configs.Class{
		{Name: "voice", Match: []configs.Match{{DSCP: []configs.DSCP{46}}}, SLA: configs.SLA{DelayGood: configs.Duration(50 * time.Millisecond), Delay: configs.Duration(150 * time.Millisecond), Loss: 1}},
		{Name: "default", SLA: configs.SLA{Delay: configs.Duration(400 * time.Millisecond), Loss: 5}},
	}
	if world == "thousand" {
		n.Topology = configs.Topology{Mode: configs.HubAndSpoke, Hubs: []string{"frankfurt", "ashburn", "singapore"}}
		for i, hub := range n.Topology.Hubs {
			n.Sites = append(n.Sites, site(i, hub, []string{"emea", "us-east", "india"}[i], i == 0))
		}
		for i := 3; i < 1000; i++ {
			r := regions()[i%len(regions())]
			n.Sites = append(n.Sites, site(i, fmt.Sprintf("%s-%03d", r.city, i/len(regions())), r.name, false))
		}
	} else {
		for i, name := range []string{"hq", "east", "west"} {
			n.Sites = append(n.Sites, site(i, name, []string{"emea", "us-east", "us-west"}[i], i == 0))
		}
	}
	if world == "hostile" {
		for i := range n.Sites {
			n.Sites[i].Labels["location"] = attack[:63]
			n.Sites[i].Labels["name"] = attack[27:90]
			n.Sites[i].Labels[attack[:40]] = "1"
		}
	}
	for i, app := range []string{"backend", "frontend", "database", "frontend", "backend", "cache"} {
		s := &n.Sites[i%min(3, len(n.Sites))]
		n.Hosts = append(n.Hosts, configs.HostEndpoint{
			Namespace: "default", Name: fmt.Sprintf("%s-%d", app, i), Site: s.Name, Labels: map[string]string{"app": app, "tier": []string{"web", "data"}[i%2]},
			Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i % 3 >> 8), byte(i % 3), byte(5 + i)}), 32)},
		})
	}
	return n
}

func site(i int, name, region string, managed bool) configs.NetworkSite {
	s := configs.NetworkSite{Site: configs.Site{
		Name: name, Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
	}, Labels: map[string]string{"region": region}}
	for u, uplink := range []string{"wan0", "lte0"} {
		var k configs.Key
		k[0], k[1], k[2], k[3] = byte(i), byte(i>>8), byte(u), 9
		s.Uplinks = append(s.Uplinks, configs.Uplink{Name: uplink, PublicKey: k, Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, byte(18 + u), byte(i >> 8), byte(i)}), 51820)}})
	}
	if managed {
		s.Managed = true
		for u := range s.Uplinks {
			s.Uplinks[u].PrivateKeyFile = s.Uplinks[u].Name + ".key"
			s.Uplinks[u].ListenPort = uint16(51820 + u)
		}
		s.LAN = []configs.LANPort{{Name: "lan", Kind: configs.LANCable}}
	}
	return s
}
