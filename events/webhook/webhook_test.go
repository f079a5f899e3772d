package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

type vector struct {
	Name      string   `json:"name"`
	Secrets   []string `json:"secrets"`
	ID        string   `json:"id"`
	Timestamp int64    `json:"timestamp"`
	Body      []byte   `json:"body"`
	Signature string   `json:"signature"`
}

// vectors were made with another implementation (Python's hmac); the first is
// the one that the standard's own libraries test with.
func vectors(t *testing.T) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no vectors")
	}
	return all
}

func mustParse(t testing.TB, texts ...string) []Secret {
	t.Helper()
	var secrets []Secret
	for _, text := range texts {
		secret, err := ParseSecret(text)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, secret)
	}
	return secrets
}

func signed(id string, at time.Time, body []byte, secrets ...Secret) http.Header {
	header := http.Header{}
	header.Set(HeaderID, id)
	header.Set(HeaderTimestamp, Timestamp(at))
	header.Set(HeaderSignature, Sign(id, at, body, secrets...))
	return header
}

func TestSignMatchesTheGoldenVectors(t *testing.T) {
	t.Parallel()
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			secrets := mustParse(t, v.Secrets...)
			at := time.Unix(v.Timestamp, 0)
			if got := Sign(v.ID, at, v.Body, secrets...); got != v.Signature {
				t.Errorf("Sign = %q, want %q", got, v.Signature)
			}
			header := signed(v.ID, at, v.Body, secrets...)
			for i, secret := range secrets {
				if err := verifyAt(at, header, v.Body, 0, []Secret{secret}); err != nil {
					t.Errorf("verify with secret %d alone: %v", i, err)
				}
			}
		})
	}
}

func TestVerifyAcceptsWhatSignMade(t *testing.T) {
	t.Parallel()
	secret, body := NewSecret(), []byte(`{"a":1}`)
	if err := Verify(signed("evt_1", time.Now(), body, secret), body, time.Minute, secret); err != nil {
		t.Errorf("Verify = %v", err)
	}
}

func TestVerifyDuringARotation(t *testing.T) {
	t.Parallel()
	older, newer, stranger := NewSecret(), NewSecret(), NewSecret()
	at, body := time.Unix(1_700_000_000, 0), []byte("{}")
	both := signed("evt_1", at, body, newer, older)

	for name, c := range map[string]struct {
		header  http.Header
		secrets []Secret
		want    error
	}{
		"a receiver with the older secret":                     {both, []Secret{older}, nil},
		"a receiver with the newer secret":                     {both, []Secret{newer}, nil},
		"a receiver with both, one signature":                  {signed("evt_1", at, body, older), []Secret{newer, older}, nil},
		"a receiver with a zero secret beside the right one":   {both, []Secret{{}, older}, nil},
		"a receiver with another secret":                       {both, []Secret{stranger}, ErrNoMatch},
		"a receiver with no secret":                            {both, nil, ErrNoSecret},
		"a receiver with nothing but a zero secret":            {both, []Secret{{}}, ErrNoSecret},
		"a request whose signature is of the removed one only": {signed("evt_1", at, body, older), []Secret{newer}, ErrNoMatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := verifyAt(at, c.header, body, 0, c.secrets); !errors.Is(err, c.want) {
				t.Errorf("verify = %v, want %v", err, c.want)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	at, body := time.Unix(1_700_000_000, 0), []byte(`{"amount":1}`)
	set := func(name, value string) func(http.Header) {
		return func(h http.Header) { h.Set(name, value) }
	}
	good := Sign("evt_1", at, body, secret)

	for name, c := range map[string]struct {
		change func(http.Header)
		body   string
		want   error
	}{
		"a changed body":           {body: `{"amount":2}`, want: ErrNoMatch},
		"an empty body":            {body: "-", want: ErrNoMatch},
		"a changed id":             {change: set(HeaderID, "evt_2"), want: ErrNoMatch},
		"a changed timestamp":      {change: set(HeaderTimestamp, "1700000001"), want: ErrNoMatch},
		"a timestamp spelled anew": {change: set(HeaderTimestamp, "01700000000"), want: ErrNoMatch},
		"a timestamp with a sign":  {change: set(HeaderTimestamp, "+1700000000"), want: ErrInvalidHeader},
		"a negative timestamp":     {change: set(HeaderTimestamp, "-1"), want: ErrInvalidHeader},
		"a timestamp that is text": {change: set(HeaderTimestamp, "yesterday"), want: ErrInvalidHeader},
		"a timestamp without end":  {change: set(HeaderTimestamp, strings.Repeat("9", 400)), want: ErrInvalidHeader},
		"no id":                    {change: func(h http.Header) { h.Del(HeaderID) }, want: ErrMissingHeader},
		"no timestamp":             {change: func(h http.Header) { h.Del(HeaderTimestamp) }, want: ErrMissingHeader},
		"no signature":             {change: func(h http.Header) { h.Del(HeaderSignature) }, want: ErrMissingHeader},
		"an empty signature":       {change: set(HeaderSignature, ""), want: ErrMissingHeader},
		"two ids":                  {change: func(h http.Header) { h.Add(HeaderID, "evt_1") }, want: ErrInvalidHeader},
		"two timestamps":           {change: func(h http.Header) { h.Add(HeaderTimestamp, "1700000000") }, want: ErrInvalidHeader},
		"two signature headers":    {change: func(h http.Header) { h.Add(HeaderSignature, good) }, want: ErrInvalidHeader},
		"an id with a full stop":   {change: set(HeaderID, "evt.1"), want: ErrInvalidHeader},
		"a signature of another kind": {
			change: set(HeaderSignature, "v2,"+strings.TrimPrefix(good, "v1,")), want: ErrNoMatch,
		},
		"a signature without version": {
			change: set(HeaderSignature, strings.TrimPrefix(good, "v1,")), want: ErrNoMatch,
		},
		"a signature cut short":       {change: set(HeaderSignature, good[:len(good)-1]), want: ErrNoMatch},
		"an empty v1 signature":       {change: set(HeaderSignature, "v1,"), want: ErrNoMatch},
		"nothing but separators":      {change: set(HeaderSignature, "   ,  "), want: ErrNoMatch},
		"a signature with more on it": {change: set(HeaderSignature, good+"AA"), want: ErrNoMatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := signed("evt_1", at, body, secret)
			if c.change != nil {
				c.change(header)
			}
			got := body
			switch c.body {
			case "":
			case "-":
				got = nil
			default:
				got = []byte(c.body)
			}
			if err := verifyAt(at, header, got, 0, []Secret{secret}); !errors.Is(err, c.want) {
				t.Errorf("verify = %v, want %v", err, c.want)
			}
		})
	}
}

func TestVerifyPassesOverSignaturesThatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	at, body := time.Unix(1_700_000_000, 0), []byte("{}")
	header := signed("evt_1", at, body, secret)
	header.Set(HeaderSignature, "v1a,AAAA  v1,AAAA v9 "+header.Get(HeaderSignature)+" v1,BBBB")
	if err := verifyAt(at, header, body, 0, []Secret{secret}); err != nil {
		t.Errorf("verify = %v", err)
	}
}

func TestVerifyHoldsTheTolerance(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	at, body := time.Unix(1_700_000_000, 0), []byte("{}")
	header := signed("evt_1", at, body, secret)
	for _, c := range []struct {
		after, tolerance time.Duration
		want             error
	}{
		{0, time.Second, nil},
		{time.Minute, time.Minute, nil},
		{time.Minute + 1, time.Minute, ErrTooOld},
		{-time.Minute, time.Minute, nil},
		{-time.Minute - 1, time.Minute, ErrTooNew},
		{DefaultTolerance, 0, nil},
		{DefaultTolerance + 1, 0, ErrTooOld},
		{-DefaultTolerance - 1, -1, ErrTooNew},
		{290 * 365 * 24 * time.Hour, time.Hour, ErrTooOld},
	} {
		if err := verifyAt(at.Add(c.after), header, body, c.tolerance, []Secret{secret}); !errors.Is(err, c.want) {
			t.Errorf("%v after, tolerance %v: %v, want %v", c.after, c.tolerance, err, c.want)
		}
	}
}

func TestSignWithoutAUsableSecretIsEmpty(t *testing.T) {
	t.Parallel()
	if got := Sign("evt_1", time.Now(), nil); got != "" {
		t.Errorf("no secret: %q", got)
	}
	if got := Sign("evt_1", time.Now(), nil, Secret{}); got != "" {
		t.Errorf("zero secret: %q", got)
	}
}

func TestSignIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	secret, at := NewSecret(), time.Unix(1_700_000_000, 0)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				body := fmt.Appendf(nil, "%d %d", i, j)
				id := fmt.Sprintf("evt_%d_%d", i, j)
				if err := verifyAt(at, signed(id, at, body, secret), body, 0, []Secret{secret}); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestValidID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"evt_01890a5d-ac96-774b-bcce-b302099a8057": true,
		"order/4711:paid":                          true,
		strings.Repeat("a", 256):                   true,
		"":                                         false,
		strings.Repeat("a", 257):                   false,
		"a.b":                                      false,
		"a b":                                      false,
		"a\nb":                                     false,
		"é":                                        false,
		"a\x7f":                                    false,
	} {
		if got := ValidID(id); got != want {
			t.Errorf("ValidID(%q) = %v", id, got)
		}
	}
}

func TestParseSecret(t *testing.T) {
	t.Parallel()
	const k24 = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"24 bytes":           {"whsec_" + k24, true},
		"no prefix":          {k24, false},
		"another prefix":     {"whsk_" + k24, false},
		"empty":              {"", false},
		"prefix only":        {"whsec_", false},
		"21 bytes":           {"whsec_" + k24[4:], false},
		"66 bytes":           {"whsec_" + strings.Repeat("AAAA", 22), false},
		"63 bytes":           {"whsec_" + strings.Repeat("AAAA", 21), true},
		"64 bytes padded":    {"whsec_" + strings.Repeat("AAAA", 21) + "AA==", true},
		"65 bytes padded":    {"whsec_" + strings.Repeat("AAAA", 21) + "AAA=", false},
		"padding missing":    {"whsec_" + strings.Repeat("AAAA", 21) + "AA", false},
		"stray bits":         {"whsec_" + strings.Repeat("AAAA", 21) + "AB==", false},
		"URL alphabet":       {"whsec_" + strings.Repeat("-_", 20), false},
		"a line break":       {"whsec_" + k24 + "\n", false},
		"a line break in":    {"whsec_" + k24[:8] + "\r\n" + k24[8:], false},
		"a space in front":   {" whsec_" + k24, false},
		"prefix, other case": {"WHSEC_" + k24, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret, err := ParseSecret(c.text)
			if c.ok {
				if err != nil || secret.Reveal() != c.text {
					t.Errorf("ParseSecret = %q, %v", secret.Reveal(), err)
				}
				return
			}
			if !errors.Is(err, ErrInvalidSecret) || !secret.IsZero() {
				t.Fatalf("ParseSecret = zero %v, %v", secret.IsZero(), err)
			}
			if strings.Contains(err.Error(), k24) || strings.Contains(err.Error(), "AAAA") {
				t.Errorf("the error shows the text: %v", err)
			}
		})
	}
}

func TestNewSecretIsAlwaysAnother(t *testing.T) {
	t.Parallel()
	a, b := NewSecret(), NewSecret()
	if a.Equal(b) || a.Reveal() == b.Reveal() {
		t.Error("two new secrets are the same")
	}
	again := mustParse(t, a.Reveal())[0]
	if !a.Equal(again) {
		t.Error("a secret differs from its own text")
	}
	if a.Equal(Secret{}) || !(Secret{}).Equal(Secret{}) {
		t.Error("Equal is wrong about the zero Secret")
	}
}

func TestASecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	secret := NewSecret()
	key := strings.TrimPrefix(secret.Reveal(), "whsec_")
	type holder struct {
		Public  Secret
		private Secret
	}
	h := holder{secret, secret}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
		fmt.Fprintf(&out, verb+"\n", secret)
		fmt.Fprintf(&out, verb+"\n", &secret)
		fmt.Fprintf(&out, verb+"\n", h)
		fmt.Fprintf(&out, verb+"\n", &h)
		fmt.Fprintf(&out, verb+"\n", []Secret{secret})
	}
	text, err := json.Marshal(map[string]any{"a": secret, "b": h, "c": &secret})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(text)
	slog.New(slog.NewTextHandler(&out, nil)).Info("message", "secret", secret, "holder", h)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("message", "secret", secret, "holder", h)
	fmt.Fprintln(&out, fmt.Errorf("wrap: %v", secret))

	got := out.String()
	for _, needle := range []string{key, fmt.Sprintf("%x", secret.hidden.key.raw), fmt.Sprintf("%v", secret.hidden.key.raw)} {
		if strings.Contains(strings.ToLower(got), strings.ToLower(needle)) {
			t.Errorf("the key is shown: %s", got)
		}
	}
	if !strings.Contains(got, redacted) {
		t.Error("nothing shows the placeholder: the test printed nothing")
	}
}

func FuzzVerifyNeverPanics(f *testing.F) {
	f.Add("evt_1", "1700000000", "v1,AAAA", []byte("{}"))
	f.Add("", "", "", []byte{})
	f.Add("a.b", "-1", " v1, ,", []byte("\x00"))
	secret := NewSecret()
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		header := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}}
		if verifyAt(time.Unix(1_700_000_000, 0), header, body, 0, []Secret{secret}) == nil {
			t.Error("a request that nobody signed was accepted")
		}
	})
}

func BenchmarkSign(b *testing.B) {
	secret, at := NewSecret(), time.Unix(1_700_000_000, 0)
	for _, size := range []int{256, 1024, 16 << 10} {
		body := make([]byte, size)
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				Sign("evt_01890a5d-ac96-774b-bcce-b302099a8057", at, body, secret)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	secret, at, body := NewSecret(), time.Unix(1_700_000_000, 0), make([]byte, 1024)
	header, secrets := signed("evt_1", at, body, secret), []Secret{secret}
	b.ReportAllocs()
	for b.Loop() {
		if err := verifyAt(at, header, body, 0, secrets); err != nil {
			b.Fatal(err)
		}
	}
}
