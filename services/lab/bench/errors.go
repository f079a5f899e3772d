package bench

import "errors"

// ErrIncorrect is wrapped by what Check returns where events were lost or
// duplicated.
var ErrIncorrect = errors.New("what arrived is not what was accepted")
