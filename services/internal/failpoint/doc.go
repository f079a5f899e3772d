// Package failpoint lets a test end, stop or delay a process at a named place
// in the code, so that a crash window is hit deliberately and not by luck.
//
// It exists only in programs built with the tag failpoints. In all others Hit
// is empty and costs nothing, and Arm refuses, so that a program that cannot
// fail is not mistaken for one that did not.
//
// A text such as
//
//	relay.after_publish=kill@3;delivery.after_post=sleep:2s@5
//
// arms points. It gives a point, the action, and the number of the hit (by
// default the first): kill is SIGKILL, stop is SIGSTOP, sleep waits.
package failpoint

import "errors"

// ErrNotBuilt is returned by Arm in a program that has no failpoints.
var ErrNotBuilt = errors.New("this program was built without failpoints (go build -tags failpoints)")
