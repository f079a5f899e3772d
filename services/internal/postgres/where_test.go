package postgres

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhereNumbersItsArguments(t *testing.T) {
	t.Parallel()
	var w Where
	if w.String() != "true" || len(w.Args()) != 0 {
		t.Errorf("without conditions: %q %v", &w, w.Args())
	}
	w.And("a > ?", 1)
	w.Always("b IS NULL")
	w.And("(c = ? OR d = ?)", "x")
	limit := w.Arg(10)
	if got := w.String() + " LIMIT " + limit; got != "a > $1 AND b IS NULL AND (c = $2 OR d = $2) LIMIT $3" {
		t.Errorf("%q", got)
	}
	if diff := cmp.Diff([]any{1, "x", 10}, w.Args()); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}
