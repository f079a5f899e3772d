package bench

import "errors"

// ErrIncorrect is wrapped by errors of Check if events were lost or duplicated.
var ErrIncorrect = errors.New("what arrived is not what was accepted")
