package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"

	"patronus/configs"
	"patronus/dashboard"
	"patronus/dashboard/client"
)

type applyCmd struct {
	remote
	File   []string `help:"A file, a directory with .yaml files, or - for standard input; repeated." short:"f" required:"" placeholder:"FILE"`
	DryRun bool     `help:"Check everything, and say which pairs gain or lose reach; change nothing."`
	Mode   string   `help:"enforced, staged (judged and reported, not enforced) or disabled; default: as it is." enum:",enforced,staged,disabled" default:""`
	Force  bool     `help:"Also a policy that a check warns of strongly."`
}

// Help is what --help says besides.
func (applyCmd) Help() string {
	return `Takes NetworkPolicy and ClusterNetworkPolicy documents, and the network that
patronus get network printed. What is there already as it should be stays as it
is, so that applying twice changes nothing.

  patronus apply -f policies/ --dry-run
  patronus apply -f web.yaml --mode staged
  kubectl get networkpolicy web -o yaml | patronus apply -f -`
}

// document is one YAML document of a file.
type document struct {
	from string // file and number, for messages
	text string
	head struct {
		Kind     string `yaml:"kind"`
		Fabric   string `yaml:"fabric"`
		Metadata struct {
			Name      string `yaml:"name"`
			Namespace string `yaml:"namespace"`
		} `yaml:"metadata"`
	}
}

// applied is what became of a document.
type applied struct {
	From string `json:"from"`
	What string `json:"what"`
	Done string `json:"done"`
	dashboard.Accepted
}

// Run implements kong's command. All documents are read before the first is
// sent; the first that is refused ends it.
func (c *applyCmd) Run(ctx context.Context, env *Env) error {
	var all []document
	for _, name := range c.File {
		docs, err := readDocuments(name, env.Stdin)
		if err != nil {
			return err
		}
		all = append(all, docs...)
	}
	if len(all) == 0 {
		return fmt.Errorf("%w: no document in %s", ErrUsage, strings.Join(c.File, ", "))
	}
	api, err := c.client(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	done := []applied{}
	for i := range all {
		var a applied
		if a, err = c.one(ctx, api, &all[i]); err != nil {
			err = fmt.Errorf("%s: %w", all[i].from, explained(err))
			if len(done) > 0 && !c.DryRun {
				err = fmt.Errorf("%w\n%d documents before it were applied", err, len(done))
			}
			break
		}
		done = append(done, a)
	}
	return errors.Join(c.print(env.Stdout, done, func(t *tabwriter.Writer) {
		for i := range done {
			writeAccepted(t, done[i].What, done[i].Done, &done[i].Accepted)
		}
	}), err)
}

func (c *applyCmd) one(ctx context.Context, api *client.Client, d *document) (applied, error) {
	a := applied{From: d.from, Done: "replaced"}
	switch {
	case d.head.Kind != "":
		namespace := d.head.Metadata.Namespace
		if d.head.Kind == "NetworkPolicy" && namespace == "" {
			namespace = "default"
		}
		id := namespace + "~" + d.head.Metadata.Name
		a.What = "policy " + id
		return a, c.policy(ctx, api, d, id, &a)
	case d.head.Fabric != "":
		a.What = "network " + d.head.Fabric
		return a, c.network(ctx, api, d, &a)
	}
	return a, fmt.Errorf("%w: neither a Kubernetes object (kind:) nor a network (fabric:)", ErrUsage)
}

func (c *applyCmd) policy(ctx context.Context, api *client.Client, d *document, id string, a *applied) error {
	query := []client.Option{client.DryRun(c.DryRun)}
	body := dashboard.PolicyBody{Spec: d.text, Mode: configs.PolicyMode(c.Mode), Force: c.Force}
	old, err := api.ShowPolicy(ctx, id)
	switch {
	case client.Status(err) == http.StatusNotFound:
		a.Done = "created"
		got, err := api.CreatePolicy(ctx, body, query...)
		return a.take(got, err)
	case err != nil:
		return err
	}
	if c.Mode == "" {
		body.Mode = old.Mode
	}
	if body.Mode == old.Mode && strings.TrimSpace(body.Spec) == strings.TrimSpace(old.Spec) {
		a.Accepted = dashboard.Accepted{ID: id, Unchanged: true}
		return nil
	}
	body.Answer = old.Answer
	got, err := api.UpdatePolicy(ctx, id, body, query...)
	return a.take(got, err)
}

// network replaces all of it, unless somebody has changed it since it was asked
// for just now.
func (c *applyCmd) network(ctx context.Context, api *client.Client, d *document, a *applied) error {
	now, err := api.Send(ctx, http.MethodGet, "/api/v1/network", nil)
	if err != nil {
		return err
	}
	_ = now.Body.Close()
	resp, err := api.Send(ctx, http.MethodPut, "/api/v1/network", client.Text{Kind: "application/yaml", Body: d.text},
		client.DryRun(c.DryRun), client.IfMatch(now.Header.Get("ETag")))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(&a.Accepted)
}

func (a *applied) take(got *dashboard.Accepted, err error) error {
	if err == nil {
		a.Accepted = *got
	}
	return err
}

// readDocuments reads a file, the .yaml files of a directory in the order of
// their names, or standard input.
func readDocuments(name string, stdin io.Reader) ([]document, error) {
	if name == "-" {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return split("standard input", text)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	files := []string{name}
	if info.IsDir() {
		files = nil
		for _, pattern := range []string{"*.yaml", "*.yml", "*.json"} {
			found, err := filepath.Glob(filepath.Join(name, pattern))
			if err != nil {
				return nil, err
			}
			files = append(files, found...)
		}
		slices.Sort(files)
	}
	var all []document
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		docs, err := split(file, text)
		if err != nil {
			return nil, err
		}
		all = append(all, docs...)
	}
	return all, nil
}

// documentEnds are the lines between two documents (YAML 1.2, 9.1.2).
var documentEnds = regexp.MustCompile(`(?m)^---(?:[ \t].*)?$\n?`)

// split cuts a text into its documents. Each is sent as it was written, so that
// what the dashboard says of lines is true within the document.
func split(from string, text []byte) ([]document, error) {
	var all []document
	parts := documentEnds.Split(string(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))), -1)
	for i, part := range parts {
		d := document{from: from, text: part}
		if len(parts) > 1 {
			d.from = fmt.Sprintf("%s, document %d", from, i+1)
		}
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(part), &n); err != nil {
			return nil, fmt.Errorf("%s: %w", d.from, err)
		}
		if n.IsZero() {
			continue // nothing but comments
		}
		if err := n.Decode(&d.head); err != nil {
			return nil, fmt.Errorf("%s: %w", d.from, err)
		}
		all = append(all, d)
	}
	return all, nil
}
