package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	iperfPort = 5201
	tcpTime   = 3 * time.Second
)

// transfer is one iperf3 run, as the receiver saw it.
type transfer struct {
	bits  float64 // per second
	bytes float64
}

// tcp sends from host A to target for tcpTime.
func tcp(ctx context.Context, w *world, target string, streams int) (transfer, error) {
	ctx, cancel := context.WithTimeout(ctx, tcpTime+10*time.Second)
	defer cancel()
	out, err := w.a.host.command(ctx, "iperf3", "-c", target, "-p", fmt.Sprint(iperfPort), "-t", fmt.Sprint(tcpTime.Seconds()), "-P", fmt.Sprint(streams), "-J").Output()
	var answer struct {
		Error string
		End   struct {
			Received struct {
				Bytes float64
				Bits  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if jsonErr := json.Unmarshal(out, &answer); jsonErr != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return transfer{}, fmt.Errorf("iperf3: %w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return transfer{}, fmt.Errorf("iperf3: %w", errors.Join(err, jsonErr))
	}
	if answer.Error != "" {
		return transfer{}, fmt.Errorf("iperf3: %s", answer.Error)
	}
	return transfer{bits: answer.End.Received.Bits, bytes: answer.End.Received.Bytes}, nil
}
