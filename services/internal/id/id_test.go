package id

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestAnIDHasOneSpelling(t *testing.T) {
	t.Parallel()
	const p = Prefix("sub_")
	made := p.New()
	for text, want := range map[string]string{
		made:                                   made,
		"sub_" + strings.ToUpper(p.UUID(made)): made,
		"rpl_" + p.UUID(made):                  "",
		p.UUID(made):                           "",
		"sub_":                                 "",
		"":                                     "",
		made + "0":                             "",
		"sub_{" + p.UUID(made) + "}":           "",
		"sub_" + strings.Repeat("x", 36):       "",
		"sub_" + uuid.Nil.String():             "sub_" + uuid.Nil.String(),
		"sub_" + strings.ReplaceAll(made, "-", "")[4:]: "",
	} {
		if got, ok := p.Parse(text); got != want || ok != (want != "") {
			t.Errorf("Parse(%q): %q, %v, want %q", text, got, ok, want)
		}
	}
	if p.FromUUID(uuid.MustParse(p.UUID(made))) != made {
		t.Errorf("%q is another one by its UUID", made)
	}
}

func TestIDsSortByTheirTime(t *testing.T) {
	t.Parallel()
	const p = Prefix("rpl_")
	made := make([]string, 100)
	for i := range made {
		made[i] = p.New()
	}
	if !slices.IsSorted(made) {
		t.Errorf("not in order: %q", made)
	}
	if u, err := uuid.Parse(p.UUID(made[0])); err != nil || u.Version() != 7 {
		t.Errorf("%q: version %d, %v", made[0], u.Version(), err)
	}
}
