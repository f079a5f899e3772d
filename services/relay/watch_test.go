package relay

import "testing"

func TestProducersThatDoNotWakeTheRelayArePolled(t *testing.T) {
	t.Parallel()
	type look struct{ woken, came bool }
	silent, call, nothing := look{false, true}, look{true, true}, look{}
	for name, c := range map[string]struct {
		looks []look
		polls bool
	}{
		"nothing comes":                         {[]look{nothing, nothing}, false},
		"all are announced":                     {[]look{call, call, call}, false},
		"one was found before it was announced": {[]look{call, silent, call, silent, call}, false},
		"two in a row are not announced":        {[]look{silent, nothing, silent}, true},
		"a call without a record between":       {[]look{silent, {true, false}, silent}, false},
	} {
		var w watch
		for _, l := range c.looks {
			w.note(l.woken, l.came)
		}
		if polls := !w.polled.IsZero(); polls != c.polls {
			t.Errorf("%s: polls %v, want %v", name, polls, c.polls)
		}
	}
}
