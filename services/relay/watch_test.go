package relay

import "testing"

func TestProducersThatDoNotWakeTheRelayArePolled(t *testing.T) {
	t.Parallel()
	type look struct{ woken, came bool }
	unannounced, call, nothing := look{false, true}, look{true, true}, look{}
	for name, c := range map[string]struct {
		looks []look
		polls bool
	}{
		"nothing comes":                         {[]look{nothing, nothing}, false},
		"all are announced":                     {[]look{call, call, call}, false},
		"one was found before it was announced": {[]look{call, unannounced, call, unannounced, call}, false},
		"two in a row are not announced":        {[]look{unannounced, nothing, unannounced}, true},
		"a call without a record between":       {[]look{unannounced, {true, false}, unannounced}, false},
	} {
		var w watch
		for _, l := range c.looks {
			w.observe(l.woken, l.came)
		}
		if polls := !w.polled.IsZero(); polls != c.polls {
			t.Errorf("%s: polls %v, want %v", name, polls, c.polls)
		}
	}
}
