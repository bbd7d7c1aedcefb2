package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHandbookIsReachable: each page of the handbook is in the contents that the
// product shows, and links between pages lead to pages.
func TestHandbookIsReachable(t *testing.T) {
	dir := filepath.Join(root, "dashboard/handbook")
	help, err := os.ReadFile(filepath.Join(root, "dashboard/web/src/pages/help.js"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	link := regexp.MustCompile(`\]\(([a-z-]+\.md)(#[a-z0-9-]+)?\)`)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		if !strings.Contains(string(help), "['"+name+"', ") {
			t.Errorf("dashboard/handbook/%s.md is not in the contents of pages/help.js", name)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(dir, m[1])); err != nil {
				t.Errorf("dashboard/handbook/%s.md links to %s, which is not there", name, m[1])
			}
		}
	}
}
