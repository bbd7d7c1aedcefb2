package pid1

import (
	"fmt"
	"strings"

	"patronus/image/slot"
)

// Facts are what the status page says.
type Facts struct {
	Booted     bool // the devices have their modules
	Ready      bool // all that comes before the tasks is done
	Version    string
	Seq        uint64
	Arch       string
	Data       bool // the data partition is there
	Trial      bool
	TrialState string
	Failed     *slot.Failure
	Interfaces []Interface
	NTP        []string
	Configured bool
	Gateway    Status
	Running    bool
	Commands   bool
	Problems   []string
}

// Interface is one row of it.
type Interface struct {
	Name, MAC string
	Carrier   bool
	Addresses []string
	Key       string // public
}

// Page is the status page: what a person needs who has a screen or a serial
// cable and nothing else.
func Page(f Facts) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nPatronus %s  (image %d, %s)\n", f.Version, f.Seq, f.Arch)
	switch {
	case f.Running:
		fmt.Fprintf(&b, "Site      %s of %s, revision %d, %d of %d paths up\n", f.Gateway.Site, f.Gateway.Fabric, f.Gateway.Revision, f.Gateway.PathsUp, f.Gateway.Paths)
	case f.Gateway.Site != "":
		fmt.Fprintf(&b, "Site      %s of %s: the gateway does not answer\n", f.Gateway.Site, f.Gateway.Fabric)
	case f.Configured:
		b.WriteString("Site      the gateway is starting\n")
	default:
		b.WriteString("Site      none yet\n")
	}
	if f.Trial {
		fmt.Fprintf(&b, "Update    this image is on trial: %s\n", f.TrialState)
	}
	if f.Failed != nil {
		fmt.Fprintf(&b, "Update    %s (%d) was given up: %s\n", f.Failed.Version, f.Failed.Seq, f.Failed.Why)
	}
	for i, row := range f.Interfaces {
		head := "Network  "
		if i > 0 {
			head = "         "
		}
		state := strings.Join(row.Addresses, " ")
		switch {
		case !row.Carrier:
			state = "no cable"
		case state == "":
			state = "up"
		}
		fmt.Fprintf(&b, "%s %s  %s  %s\n", head, row.Name, row.MAC, state)
	}
	head := "Keys     "
	for _, row := range f.Interfaces {
		if row.Key != "" {
			fmt.Fprintf(&b, "%s %s  %s\n", head, row.Name, row.Key)
			head = "         "
		}
	}
	if !f.Configured {
		b.WriteString("To join   write a configuration with the public keys above (private_key_file: /etc/patronus/eth0.key)\n" +
			"          to patronus/patronus.yaml on this disk's EFI partition, or on a volume named CIDATA, and restart.\n")
	}
	for _, p := range f.Problems {
		fmt.Fprintf(&b, "Problem   %s\n", p)
	}
	return b.String()
}
