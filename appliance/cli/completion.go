package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is what --help says besides.
func (completionCmd) Help() string {
	return `  bash:  source <(patronus completion bash)         in ~/.bashrc
  zsh:   source <(patronus completion zsh)          in ~/.zshrc, after compinit
  fish:  patronus completion fish > ~/.config/fish/completions/patronus.fish`
}

// Run implements kong's command.
func (c *completionCmd) Run(env *Env, model *kong.Application) error {
	words := completions(model)
	switch c.Shell {
	case "fish":
		writeFish(env.Stdout, model, words)
	case "zsh":
		// zsh runs bash's completions by itself.
		fmt.Fprintln(env.Stdout, "autoload -U +X bashcompinit && bashcompinit")
		writeBash(env.Stdout, words)
	default:
		writeBash(env.Stdout, words)
	}
	return nil
}

// completions are the words that may follow a command, by the words before:
// "" for patronus itself, "config check" for a command of a command.
func completions(model *kong.Application) map[string][]string {
	out := map[string][]string{}
	var walk func(at string, n *kong.Node)
	walk = func(at string, n *kong.Node) {
		var words []string
		for _, child := range n.Children {
			if !child.Hidden {
				words = append(words, child.Name)
				walk(strings.TrimSpace(at+" "+child.Name), child)
			}
		}
		for _, arg := range n.Positional {
			words = append(words, slices.Sorted(maps.Keys(arg.EnumMap()))...)
		}
		if at == "get" || at == "delete" {
			for plural, r := range resources() {
				switch {
				case at == "get":
					words = append(words, plural)
				case r.delete != nil:
					words = append(words, r.singular)
				}
			}
		}
		for m := n; m != nil; m = m.Parent {
			for _, f := range m.Flags {
				if !f.Hidden {
					words = append(words, "--"+f.Name)
				}
			}
		}
		slices.Sort(words)
		out[at] = slices.Compact(slices.DeleteFunc(words, func(w string) bool { return w == "" }))
	}
	walk("", model.Node)
	return out
}

// writeBash prints a function that knows all words; files are offered where
// nothing else fits.
func writeBash(w io.Writer, words map[string][]string) {
	fmt.Fprint(w, `_patronus() {
	local at="" word i
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case " ${_patronus_commands[*]} " in *" ${at:+$at.}$word "*) at=${at:+$at.}$word ;; esac
	done
	COMPREPLY=($(compgen -W "${_patronus_words[${at:-.}]}" -- "${COMP_WORDS[COMP_CWORD]}"))
}
declare -A _patronus_words=(
`)
	var commands []string
	for _, at := range slices.Sorted(maps.Keys(words)) {
		key := strings.ReplaceAll(at, " ", ".")
		if key == "" {
			key = "."
		} else {
			commands = append(commands, key)
		}
		fmt.Fprintf(w, "\t[%q]=%q\n", key, strings.Join(words[at], " "))
	}
	fmt.Fprintf(w, ")\n_patronus_commands=(%s)\ncomplete -o default -F _patronus patronus\n", strings.Join(commands, " "))
}

func writeFish(w io.Writer, model *kong.Application, words map[string][]string) {
	help := map[string]string{}
	for _, child := range model.Children {
		help[child.Name] = child.Help
	}
	for _, at := range slices.Sorted(maps.Keys(words)) {
		condition := "__fish_use_subcommand"
		if at != "" {
			condition = "__fish_seen_subcommand_from " + at[strings.LastIndexByte(at, ' ')+1:]
		}
		for _, word := range words[at] {
			what := "-a " + word
			if long, ok := strings.CutPrefix(word, "--"); ok {
				what = "-l " + long
			} else if at == "" {
				what += fmt.Sprintf(" -d %q", help[word])
			}
			fmt.Fprintf(w, "complete -c patronus -n %q %s\n", condition, what)
		}
	}
}
