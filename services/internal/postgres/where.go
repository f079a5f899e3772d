package postgres

import (
	"strconv"
	"strings"
)

// Where builds the conditions of a query together with its arguments. The zero
// value has none.
type Where struct {
	conditions []string
	args       []any
}

// And adds a condition. Each ? in it stands for the argument.
func (w *Where) And(condition string, arg any) {
	w.conditions = append(w.conditions, strings.ReplaceAll(condition, "?", w.Arg(arg)))
}

// Always adds a condition without an argument.
func (w *Where) Always(condition string) { w.conditions = append(w.conditions, condition) }

// Arg adds an argument for another part of the query, and returns its
// placeholder.
func (w *Where) Arg(arg any) string {
	w.args = append(w.args, arg)
	return "$" + strconv.Itoa(len(w.args))
}

// String returns the conditions for use after WHERE.
func (w *Where) String() string {
	if len(w.conditions) == 0 {
		return "true"
	}
	return strings.Join(w.conditions, " AND ")
}

// Args are the arguments, in the order of their placeholders.
func (w *Where) Args() []any { return w.args }
