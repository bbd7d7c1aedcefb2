package configs

import (
	"strings"
	"testing"
)

func TestExportProblems(t *testing.T) {
	for name, c := range map[string]struct {
		engine Engine
		want   string
	}{
		"secret in the URL":    {Engine{Kind: EnginePostgres, URL: "postgres://u:hunter2@h/d"}, "holds a secret"},
		"secret in a header":   {Engine{Kind: EnginePrometheus, URL: "https://h/w", Headers: map[string]string{"Authorization": "Bearer hunter2"}}, "would be a secret"},
		"a file elsewhere":     {Engine{Kind: EnginePrometheus, URL: "https://h/w", TokenFile: "../controller.key"}, "is not a plain file name"},
		"a hidden file":        {Engine{Kind: EnginePrometheus, URL: "https://h/w", TokenFile: ".x"}, "is not a plain file name"},
		"another kind's field": {Engine{Kind: EngineSyslog, URL: "udp://h", Database: "d"}, "means nothing to syslog"},
		"no database":          {Engine{Kind: EngineInflux, URL: "http://h"}, "is missing"},
		"samples of each":      {Engine{Kind: EnginePrometheus, URL: "http://h", From: FromAppliance}, "is for syslog alone"},
		"scheme":               {Engine{Kind: EngineSyslog, URL: "https://h"}, "is no scheme of syslog"},
		"kind":                 {Engine{Kind: "kafka", URL: "https://h"}, "is no kind of engine"},
	} {
		t.Run(name, func(t *testing.T) {
			in := *mustParse(t, "reference.yaml")
			c.engine.Name = "x"
			in.Export.Engines = []Engine{c.engine}
			_, err := New(in)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("New: %v, want %q", err, c.want)
			}
		})
	}
}

func TestSyslogPorts(t *testing.T) {
	for url, want := range map[string]string{"udp://h": "udp h:514", "tcp://[::1]": "tcp [::1]:601", "tls://h": "tls h:6514", "tls://h:1": "tls h:1"} {
		if network, addr := (&Engine{URL: url}).Syslog(); network+" "+addr != want {
			t.Errorf("%s: %s %s", url, network, addr)
		}
	}
}
