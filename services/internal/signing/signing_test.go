package signing

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func ring(t *testing.T, keys ...string) *Keyring {
	t.Helper()
	r, err := ParseKeyring(strings.Join(keys, ","))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	t.Parallel()
	r := ring(t, GenerateKey())
	for _, plaintext := range []string{"", "whsec_abc", strings.Repeat("a", 1<<16)} {
		sealed := r.Seal([]byte(plaintext), []byte("sub_1"))
		got, err := r.Open(sealed, []byte("sub_1"))
		if err != nil || string(got) != plaintext {
			t.Errorf("Open = %d bytes, %v", len(got), err)
		}
		if plaintext != "" && bytes.Contains(sealed, []byte(plaintext)) {
			t.Error("the text is in the sealed value")
		}
		if !r.Current(sealed) {
			t.Error("a value just sealed is not current")
		}
	}
}

func TestSealNeverRepeatsItself(t *testing.T) {
	t.Parallel()
	r := ring(t, GenerateKey())
	seen := map[string]bool{}
	for range 1000 {
		seen[string(r.Seal([]byte("a"), nil))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different values of 1000", len(seen))
	}
}

func TestOpenRefusesEveryChange(t *testing.T) {
	t.Parallel()
	r := ring(t, GenerateKey())
	sealed := r.Seal([]byte("whsec_abc"), []byte("sub_1"))
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := r.Open(changed, []byte("sub_1")); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
		if _, err := r.Open(sealed[:i], []byte("sub_1")); err == nil {
			t.Errorf("opened with %d bytes of %d", i, len(sealed))
		}
	}
	for name, c := range map[string]struct {
		sealed []byte
		data   string
		want   error
	}{
		"another row's data": {sealed, "sub_2", ErrNotAuthentic},
		"no data":            {sealed, "", ErrNotAuthentic},
		"more at the end":    {append(bytes.Clone(sealed), 0), "sub_1", ErrNotAuthentic},
		"nothing":            {nil, "sub_1", ErrMalformed},
		"a text":             {[]byte("whsec_abcdefghijklmnopqrstuvwxyz0123456789"), "sub_1", ErrMalformed},
		"a prefix alone":     {sealed[:9], "sub_1", ErrMalformed},
	} {
		if _, err := r.Open(c.sealed, []byte(c.data)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	a, b := GenerateKey(), GenerateKey()
	before, during, after := ring(t, a), ring(t, b, a), ring(t, b)

	sealed := before.Seal([]byte("text"), nil)
	if got, err := during.Open(sealed, nil); err != nil || string(got) != "text" {
		t.Errorf("during the rotation: %q, %v", got, err)
	}
	if during.Current(sealed) {
		t.Error("a value of the older key counts as current")
	}
	if _, err := after.Open(sealed, nil); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("with the key removed: %v", err)
	}
	resealed := during.Seal([]byte("text"), nil)
	if got, err := after.Open(resealed, nil); err != nil || string(got) != "text" || !during.Current(resealed) {
		t.Errorf("sealed again: %q, %v", got, err)
	}
	if before.KeyID() == after.KeyID() || during.KeyID() != after.KeyID() {
		t.Errorf("ids %s, %s, %s", before.KeyID(), during.KeyID(), after.KeyID())
	}
}

// A value sealed by an earlier release must always open. This one was created
// by another implementation (Node's crypto).
func TestTheFormatIsStable(t *testing.T) {
	t.Parallel()
	raw := make([]byte, keySize)
	for i := range raw {
		raw[i] = byte(i)
	}
	const golden = "AaposAAvhdLfZGVmZ2hpamtsbW5vP3OtAxq2N/xdpu6GWFNfIRduRH2+FqE0XQ=="
	sealed, err := base64.StdEncoding.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	r := ring(t, base64.StdEncoding.EncodeToString(raw))
	got, err := r.Open(sealed, []byte("sub_1"))
	if err != nil || string(got) != "whsec_abc" {
		t.Errorf("Open = %q, %v (a new value: %s)", got, err,
			base64.StdEncoding.EncodeToString(r.Seal([]byte("whsec_abc"), []byte("sub_1"))))
	}
}

func TestParseKeyringRefuses(t *testing.T) {
	t.Parallel()
	key := GenerateKey()
	for name, text := range map[string]string{
		"nothing":                     "",
		"white space":                 " \n",
		"not base64":                  "secret!",
		"31 bytes":                    base64.StdEncoding.EncodeToString(make([]byte, 31)),
		"33 bytes":                    base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1}, 33)),
		"all zeros":                   base64.StdEncoding.EncodeToString(make([]byte, 32)),
		"hexadecimal":                 strings.Repeat("ab", 32),
		"a comma after":               key + ",",
		"one key twice":               key + "," + key,
		"a second one that is no key": key + ",abc",
	} {
		_, err := ParseKeyring(text)
		if !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%s: %v", name, err)
		} else if text != "" && strings.Contains(err.Error(), key) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
	if _, err := ParseKeyring(" " + key + " , " + GenerateKey() + "\n"); err != nil {
		t.Errorf("white space around keys: %v", err)
	}
	// Bytes that the alphabets encode differently give the same key.
	raw := bytes.Repeat([]byte{0xfb, 0xff}, 16)
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		text := encoding.EncodeToString(raw)
		if got := ring(t, text).KeyID(); got != ring(t, base64.StdEncoding.EncodeToString(raw)).KeyID() {
			t.Errorf("%s is another key", text)
		}
	}
}

func TestAKeyringIsNeverPrinted(t *testing.T) {
	t.Parallel()
	r := ring(t, GenerateKey())
	if got := fmt.Sprint(r); got != "keyring("+r.KeyID()+")" {
		t.Errorf("printed as %s", got)
	}
}

func TestKeyFileIsMadeOnceAndForItsOwner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "secret.key")
	rings := make([]*Keyring, 16)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() {
			var err error
			if rings[i], err = LoadOrCreateKeyFile(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	sealed := rings[0].Seal([]byte("text"), nil)
	for _, r := range rings {
		if got, err := r.Open(sealed, nil); err != nil || string(got) != "text" {
			t.Errorf("Open = %q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

func TestKeyFileIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		"others may read it": {GenerateKey(), 0o644},
		"its group may":      {GenerateKey(), 0o640},
		"it is no key":       {"hello", 0o600},
		"it is empty":        {"", 0o600},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "secret.key")
			if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil { // because of the umask
				t.Fatal(err)
			}
			if _, err := LoadOrCreateKeyFile(path); !errors.Is(err, ErrInvalidKey) {
				t.Errorf("LoadOrCreateKeyFile = %v", err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != c.text {
				t.Errorf("the file was changed: %q, %v", got, err)
			}
		})
	}
	t.Run("it is a directory", func(t *testing.T) {
		t.Parallel()
		if _, err := LoadOrCreateKeyFile(t.TempDir()); !errors.Is(err, ErrInvalidKey) {
			t.Errorf("LoadOrCreateKeyFile = %v", err)
		}
	})
}

func TestDerivedKeysDifferByPurposeAndKey(t *testing.T) {
	t.Parallel()
	a, b := GenerateKey(), GenerateKey()
	both := ring(t, a, b).Derive("messages")
	if len(both) != 2 || len(both[0]) != keySize || bytes.Equal(both[0], both[1]) {
		t.Fatalf("derived %x", both)
	}
	if !bytes.Equal(both[1], ring(t, b).Derive("messages")[0]) {
		t.Error("a derived key depends on the other keys of the ring")
	}
	if bytes.Equal(both[0], ring(t, a).Derive("cookies")[0]) {
		t.Error("two purposes have one key")
	}
	if raw, err := base64.StdEncoding.DecodeString(a); err != nil || bytes.Equal(raw, both[0]) {
		t.Errorf("the derived key is the ring's own: %v", err)
	}
}

// Messages signed by an earlier release must verify. The value was computed
// with another implementation (Python's hmac, by RFC 5869).
func TestDerivationIsStable(t *testing.T) {
	t.Parallel()
	raw := make([]byte, keySize)
	for i := range raw {
		raw[i] = byte(i)
	}
	const golden = "czIgUB94d3iufHGbSrsUyfHbWiIazeqzwP0IsBNrkHM="
	got := ring(t, base64.StdEncoding.EncodeToString(raw)).Derive("envelope v1")
	if text := base64.StdEncoding.EncodeToString(got[0]); text != golden {
		t.Errorf("derived %s, want %s", text, golden)
	}
}
