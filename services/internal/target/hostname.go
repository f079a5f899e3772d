package target

import (
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

const (
	maxHostLen  = 253
	maxLabelLen = 63
)

// asciiHost returns a host's name as DNS has it: in lower case, with
// international labels in their ASCII form by UTS 46, as browsers look them up.
func asciiHost(host string) (string, error) {
	host = strings.Map(func(r rune) rune {
		switch r {
		case '\u3002', '\uff0e', '\uff61': // the dots of other scripts
			return '.'
		}
		return r
	}, host)
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	same := true
	for i, label := range labels {
		ascii, err := asciiLabel(label)
		if err != nil {
			return "", err
		}
		same = same && ascii == label
		labels[i] = ascii
	}
	if same && len(host) <= maxHostLen { // nearly always
		return host, nil
	}
	name := strings.Join(labels, ".")
	if strings.HasSuffix(host, ".") {
		name += "."
	}
	if len(name) > maxHostLen {
		return "", invalidURL("its host is too long")
	}
	return name, nil
}

func asciiLabel(label string) (string, error) {
	if strings.ContainsFunc(label, forbiddenInHost) {
		return "", invalidURL("its host has a character in it that no host name has")
	}
	ascii := strings.ToLower(label)
	if !isASCII(label) || strings.HasPrefix(ascii, "xn--") {
		if mixesScripts(label) {
			return "", invalidURL("its host has letters of several scripts in one label: write that label in its ASCII form (xn--...)")
		}
		var err error
		if ascii, err = idna.Lookup.ToASCII(label); err != nil {
			return "", invalidURL("its host is not a valid international name (UTS 46)")
		}
	}
	if ascii == "" || len(ascii) > maxLabelLen {
		return "", invalidURL("its host has a label that is empty or too long")
	}
	if strings.Contains(ascii, ".") || strings.ContainsFunc(ascii, forbiddenInHost) {
		return "", invalidURL("its host is not a valid international name (UTS 46)")
	}
	return ascii, nil
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
}

// forbiddenInHost allows letters of any script. Symbols and digits of other
// scripts serve only to disguise a name.
func forbiddenInHost(r rune) bool {
	switch {
	case r >= '0' && r <= '9', r == '-', r == '_':
		return false
	}
	return !unicode.IsLetter(r) && !unicode.IsMark(r)
}

// mixesScripts reports whether a label's letters are of scripts that no
// language writes together, which allows lookalike names. The allowed
// combinations are those of UTS 39, level "highly restrictive".
func mixesScripts(label string) bool {
	scripts := map[string]bool{}
	for _, r := range label {
		scripts[script(r)] = true
	}
	delete(scripts, "")
	if len(scripts) < 2 {
		return false
	}
	for _, together := range [...][]string{
		{"Latin", "Han", "Hiragana", "Katakana"}, {"Latin", "Han", "Bopomofo"}, {"Latin", "Han", "Hangul"},
	} {
		n := 0
		for _, name := range together {
			if scripts[name] {
				n++
			}
		}
		if n == len(scripts) {
			return false
		}
	}
	return true
}

// script is the name of the only script of r, or empty.
func script(r rune) string {
	if unicode.In(r, unicode.Common, unicode.Inherited) {
		return ""
	}
	for name, table := range unicode.Scripts {
		if unicode.Is(table, r) {
			return name
		}
	}
	return ""
}
