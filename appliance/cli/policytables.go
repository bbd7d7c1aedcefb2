package cli

import (
	"fmt"
	"io"
	"strings"

	"patronus/netstack/policy/simulate"
)

// tableRows is how long a table for people gets; --output json has everything.
const tableRows = 200

func more(w io.Writer, n int) {
	if n > tableRows {
		fmt.Fprintf(w, "... and %d more (-o json lists all)\n", n-tableRows)
	}
}

func writeSimulation(w io.Writer, world *simulate.World, diff []simulate.Difference, m *simulate.Matrix, s *simulation) error {
	groups := world.Groups()
	if len(diff) == 0 {
		fmt.Fprintln(w, "Nothing changes between any two endpoints.")
	} else {
		fmt.Fprintf(w, "Changes between %d pairs\n\n", len(diff))
		t := newTable(w)
		fmt.Fprintln(t, "FROM\tTO\tNO LONGER ALLOWED\tNEWLY ALLOWED")
		for _, d := range diff[:min(len(diff), tableRows)] {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", groups[d.From].Name(), groups[d.To].Name(), changed(world.Text(d.Lost)), changed(world.Text(d.Gained)))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		more(w, len(diff))
	}
	if len(s.Flows) > 0 {
		fmt.Fprintln(w, "\nFlows")
		fmt.Fprintln(w)
		t := newTable(w)
		fmt.Fprintln(t, "FROM\tTO\tPORT\tTODAY\tCANDIDATE\tBECAUSE")
		for i := range s.Flows {
			f := &s.Flows[i]
			mark := ""
			if f.Changed {
				mark = " (changes)"
			}
			fmt.Fprintf(t, "%s\t%s\t%d/%s\t%s\t%s%s\t%s\n", f.From, f.To, f.Port, f.Protocol, allowedWord(f.Before.Allowed), allowedWord(f.After.Allowed), mark,
				because(f.After.Reason, f.After.Policy, f.After.Rule))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if s.Replay != nil {
		fmt.Fprintln(w)
		if err := writeReplay(w, s.Replay); err != nil {
			return err
		}
	}
	if m != nil {
		fmt.Fprintln(w, "\nUnder the candidate")
		fmt.Fprintln(w)
		if err := writeMatrix(w, world, m); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	return writeFindings(w, s.Findings)
}

func changed(ports string) string {
	if ports == "none" {
		return "-"
	}
	return ports
}

func allowedWord(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// because says who decided, and why.
func because(reason, id string, rule int32) string {
	if id == "" {
		return reason
	}
	return reason + " by " + place(id, int(rule))
}

func place(id string, rule int) string {
	if rule < 0 {
		return id
	}
	return fmt.Sprintf("%s rule %d", id, rule)
}

func writeReplay(w io.Writer, r *simulate.Report) error {
	fmt.Fprintf(w, "Replay of %s recorded flows", thousands(r.Records))
	if !r.First.IsZero() {
		fmt.Fprintf(w, ", %s to %s", r.First.Format("2006-01-02 15:04:05"), r.Last.Format("2006-01-02 15:04:05"))
	}
	fmt.Fprintf(w, "\n  would be blocked  %s (%s)\n  newly allowed     %s (%s)\n  unchanged         %s\n", thousands(r.Blocked.Flows), size(r.Blocked.Bytes),
		thousands(r.Allowed.Flows), size(r.Allowed.Bytes), thousands(r.Unchanged))
	if r.Blocked.Flows+r.Allowed.Flows == 0 {
		return nil
	}
	t := newTable(w)
	row := func(what string, c *simulate.Changes) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", what, thousands(c.Blocked.Flows), thousands(c.Allowed.Flows), size(c.Blocked.Bytes+c.Allowed.Bytes))
	}
	fmt.Fprintln(t, "\nBY POLICY\tBLOCKED\tALLOWED\tBYTES")
	for i := range r.Policies[:min(len(r.Policies), 20)] {
		row(place(dash(r.Policies[i].Policy), int(r.Policies[i].Rule)), &r.Policies[i].Changes)
	}
	fmt.Fprintln(t, "\nBY SITE\tBLOCKED\tALLOWED\tBYTES")
	for i := range r.Sites[:min(len(r.Sites), 20)] {
		row(dash(r.Sites[i].From)+" -> "+dash(r.Sites[i].To), &r.Sites[i].Changes)
	}
	fmt.Fprintln(t, "\nBY LABEL\tBLOCKED\tALLOWED\tBYTES")
	for i := range r.Labels[:min(len(r.Labels), 20)] {
		row(r.Labels[i].End+" "+r.Labels[i].Label, &r.Labels[i].Changes)
	}
	fmt.Fprintln(t, "\nSAMPLE\tFLOW\tWAS\tWOULD BE")
	for i := range r.Samples[:min(len(r.Samples), 30)] {
		s := &r.Samples[i]
		fmt.Fprintf(t, "%s -> %s\t%s\t%s%s\t%s, %s\n", s.From, s.To, s.Flow, s.Was, prefixed(" by ", placeIf(s.WasBy, s.WasRule)), s.Would, because(s.Reason, s.By, s.Rule))
	}
	return t.Flush()
}

func placeIf(id string, rule int32) string {
	if id == "" {
		return ""
	}
	return place(id, int(rule))
}

// thousands writes 1234567 as 1,234,567.
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// gridGroups is how many groups fit side by side in a terminal.
const gridGroups = 40

// writeMatrix draws who reaches whom, and lists the ports where it is neither
// everything nor nothing.
func writeMatrix(w io.Writer, world *simulate.World, m *simulate.Matrix) error {
	groups := world.Groups()
	var shown []int
	for i := range groups {
		for j := range groups {
			if m.Cells[i][j] != nil || m.Cells[j][i] != nil {
				shown = append(shown, i)
				break
			}
		}
	}
	if len(shown) == 0 {
		_, err := fmt.Fprintln(w, "No endpoints.")
		return err
	}
	if len(shown) <= gridGroups {
		writeGrid(w, world, m, shown)
	}
	t := newTable(w)
	fmt.Fprintln(t, "FROM\tTO\tALLOWED")
	rows := 0
	for _, from := range shown {
		for _, to := range shown {
			cell := m.Cells[from][to]
			if cell == nil {
				continue
			}
			text := world.Text(cell)
			if len(shown) <= gridGroups && (text == "all" || text == "none") {
				continue
			}
			if rows++; rows <= tableRows {
				fmt.Fprintf(t, "%s\t%s\t%s\n", groups[from].Name(), groups[to].Name(), text)
			}
		}
	}
	if rows == 0 {
		return nil
	}
	if err := t.Flush(); err != nil {
		return err
	}
	more(w, rows)
	return nil
}

func writeGrid(w io.Writer, world *simulate.World, m *simulate.Matrix, shown []int) {
	groups := world.Groups()
	width := 0
	for _, i := range shown {
		width = max(width, len(groups[i].Name()))
	}
	fmt.Fprintf(w, "%*s", width+6, "to")
	for n := range shown {
		fmt.Fprintf(w, "%3d", n+1)
	}
	fmt.Fprintln(w)
	for n, from := range shown {
		fmt.Fprintf(w, "%3d %-*s  ", n+1, width, groups[from].Name())
		var row strings.Builder
		for _, to := range shown {
			mark := " "
			if cell := m.Cells[from][to]; cell != nil {
				switch world.Text(cell) {
				case "all":
					mark = "#"
				case "none":
					mark = "."
				default:
					mark = "+"
				}
			}
			row.WriteString("  " + mark)
		}
		fmt.Fprintln(w, strings.TrimRight(row.String(), " "))
	}
	fmt.Fprint(w, "\n# everything   + some ports, listed below   . nothing\n\n")
}

// writeFindings lists findings, each with its place and its witness.
func writeFindings(w io.Writer, findings []simulate.Finding) error {
	count := map[simulate.Severity]int{}
	for i := range findings {
		f := &findings[i]
		count[f.Severity]++
		if i >= tableRows {
			continue
		}
		at := f.Policy
		if f.Direction != "" {
			at = strings.TrimSpace(at + " " + f.Direction)
		}
		if f.Rule >= 0 {
			at += fmt.Sprintf(" rule %d", f.Rule)
		}
		if at != "" {
			at += ": "
		}
		fmt.Fprintf(w, "%s: %s%s [%s]\n", f.Severity, at, f.Text, f.Code)
		if f.Other != "" {
			fmt.Fprintf(w, "    with  %s\n", place(f.Other, f.OtherRule))
		}
		if f.Witness != nil {
			fmt.Fprintf(w, "    flow  %s\n", f.Witness)
		}
	}
	more(w, len(findings))
	if len(findings) == 0 {
		_, err := fmt.Fprintln(w, "No findings.")
		return err
	}
	_, err := fmt.Fprintf(w, "%s, %s, %s\n", plural(count[simulate.Error], "error"), plural(count[simulate.Warning], "warning"), plural(count[simulate.Info], "note"))
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
