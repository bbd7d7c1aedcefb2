package dashboard

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
	"go.yaml.in/yaml/v3"

	"patronus/configs"
	"patronus/dashboard/auth"
	"patronus/dashboard/control"
)

func networkRoutes() []Route {
	return []Route{
		{
			Method: http.MethodGet, Path: "/api/v1/network", Name: "exportNetwork", Access: fabric(auth.ViewConfig), Status: 200,
			Doc: "Export the whole network as one YAML, or as JSON if Accept asks for it.", Answer: configs.Network{}, handle: (*Server).exportNetwork,
		},
		{
			Method: http.MethodPut, Path: "/api/v1/network", Name: "importNetwork", Access: fabric(auth.DeleteConfig), Status: 202,
			Doc:  "Replace the whole network by what was exported and edited. What an appliance alone decides stays as it is.",
			Body: configs.Network{}, Answer: Accepted{}, Query: []Param{{"dry_run", "boolean", "check everything, write nothing"}}, handle: (*Server).importNetwork,
		},
	}
}

func (s *Server) exportNetwork(r *request) error {
	n := s.o.Plane.Current().Network
	r.Set(fiber.HeaderETag, tag(n))
	if strings.Contains(r.Get(fiber.HeaderAccept), fiber.MIMEApplicationJSON) {
		return r.answer(http.StatusOK, n)
	}
	text, err := networkYAML(n)
	if err != nil {
		return err
	}
	r.Set(fiber.HeaderContentType, "application/yaml")
	r.Set(fiber.HeaderContentDisposition, fmt.Sprintf(`attachment; filename="%s.yaml"`, n.Fabric))
	return r.Send(text)
}

// networkYAML is the JSON of a network in the style of YAML, in its order.
func networkYAML(n *configs.Network) ([]byte, error) {
	text, err := n.Canonical()
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("network as YAML: %w", err)
	}
	block(&doc)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, fmt.Errorf("network as YAML: %w", err)
	}
	return b.Bytes(), nil
}

// block takes the braces and quotes of JSON away; texts of several lines become
// blocks.
func block(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.Contains(n.Value, "\n") {
		n.Style = yaml.LiteralStyle
	}
	for _, c := range n.Content {
		block(c)
	}
}

func (s *Server) importNetwork(r *request) error {
	var next configs.Network
	if err := r.body(&next); err != nil {
		return err
	}
	return s.commit(r, control.Change{
		Action: "import_network", Kind: "network", ID: next.Fabric,
		Edit: func(n *configs.Network) error {
			if err := r.match(tag(n)); err != nil {
				return err
			}
			if next.Fabric != n.Fabric {
				return invalid("fabric", "is of another network: this one is "+n.Fabric)
			}
			out := next.Clone()
			for i := range out.Sites {
				keepOwn(&out.Sites[i], n.Site(out.Sites[i].Name))
			}
			*n = *out
			return nil
		},
	}, "/api/v1/network")
}

// keepOwn keeps of a site what its appliance alone decides, and that a site is
// managed once it has joined, not because a file says so. old may be nil.
func keepOwn(s, old *configs.NetworkSite) {
	if old == nil {
		s.Managed, s.DataDir, s.Devices = false, "", nil
		for i := range s.Uplinks {
			s.Uplinks[i].PrivateKeyFile = ""
		}
		return
	}
	s.Managed, s.DataDir = old.Managed, old.DataDir
	if old.Managed {
		s.LAN, s.Devices = old.LAN, old.Devices
	}
	for i := range s.Uplinks {
		u := &s.Uplinks[i]
		u.PrivateKeyFile = ""
		if at := slices.IndexFunc(old.Uplinks, func(x configs.Uplink) bool { return x.Name == u.Name }); at >= 0 {
			u.PrivateKeyFile = old.Uplinks[at].PrivateKeyFile
		}
	}
}
