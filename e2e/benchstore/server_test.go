package benchstore

import (
	"os/exec"
	"testing"

	"patronus/e2e/benchstore/load"
)

// The servers take samples and find them again.
func TestServers(t *testing.T) {
	for _, c := range []struct {
		program string
		open    func(dir string) (load.Engine, func() error, error)
	}{
		{"victoria-metrics", func(dir string) (load.Engine, func() error, error) {
			v, err := NewVictoria(dir)
			if err != nil {
				return nil, nil, err
			}
			return v, v.close, nil
		}},
		{"influxd", func(dir string) (load.Engine, func() error, error) {
			v, err := NewInflux(dir)
			if err != nil {
				return nil, nil, err
			}
			return v, v.close, nil
		}},
	} {
		t.Run(c.program, func(t *testing.T) {
			long(t)
			if _, err := exec.LookPath(c.program); err != nil {
				t.Skip(err)
			}
			e, stop, err := c.open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
			}()
			values := make([]int32, 20*load.Metrics)
			for i := range values {
				values[i] = int32(1000 + i)
			}
			for i := range int64(120) {
				if err := e.Tick(tortureBase+i*10_000, values); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Flush(); err != nil {
				t.Fatal(err)
			}
			if f, err := e.Hour(3, tortureBase, tortureBase+3_600_000); err != nil || f.N != 120 {
				t.Errorf("hour: %+v, %v", f, err)
			}
			if f, err := e.Site(1, tortureBase, tortureBase+20*60_000); err != nil || f.N != 200 {
				t.Errorf("site: %+v, %v", f, err)
			}
		})
	}
}
