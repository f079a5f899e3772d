package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"

	"posthorn/events/strictjson"
)

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func manyNames(n int, last string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"` + strings.Repeat("n", i+1) + `":1,`)
	}
	return "{" + b.String() + `"` + last + `":1}`
}

func TestUnambiguousTextsAreAccepted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, " [1 ,\t2\r\n] ", `"\ud83d\ude00\u0001\/"`, `-0.0e-0`, `1.7976931348623157e308`, `1e-400`, `1e-9999`, `0e99999`, `null`, nested(64),
		manyNames(40, "other"), `{"a":{"a":{"a":1}}}`, `[{"a":1},{"a":1}]`,
	} {
		if err := strictjson.Check([]byte(text), 0); err != nil {
			t.Errorf("%.60s: %v", text, err)
		}
		if !json.Valid([]byte(text)) {
			t.Errorf("%.60s is not JSON", text)
		}
	}
}

func TestAmbiguousTextsAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                              "is not JSON: it ends too early",
		`{`:                             "is not JSON: it ends too early",
		`01`:                            "is not JSON: more follows after the value, at byte 1",
		`[1,]`:                          "[1]: is not JSON: a value is missing at byte 3",
		"\xff":                          "is not UTF-8",
		"\ufeff1":                       "is not JSON: a value is missing at byte 0",
		"\"\n\"":                        "is not JSON: a control character in a string at byte 1",
		`{"a":[{"b":"\u0000"}]}`:        `a[0].b: has a NUL character (\u0000) in it`,
		`"\ud800"`:                      "has half of a surrogate pair in it",
		`"\udc00\ud800"`:                "has half of a surrogate pair in it",
		`{"a":1,"\u0061":2}`:            "a: is given twice",
		manyNames(40, "nn"):             "nn: is given twice",
		`[1e400]`:                       "[0]: is a number that is out of range",
		`-1` + strings.Repeat("0", 400): "is a number that is out of range",
		`1e-10000`:                      "is a number that is out of range",
		`{"deep":` + nested(64) + `}`:   "deep" + strings.Repeat("[0]", 63) + ": is nested deeper than 64 levels",
		nested(100000):                  strings.Repeat("[0]", 64) + ": is nested deeper than 64 levels",
		`{"a":1} {}`:                    "is not JSON: more follows after the value, at byte 8",
		`{"` + strings.Repeat("a", 10) + `": tru}`: "aaaaaaaaaa: is not JSON: a value is missing at byte 15",
	} {
		if err := strictjson.Check([]byte(text), 0); err == nil || err.Error() != want {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
	if err := strictjson.Check([]byte(nested(63)), 1); err != nil {
		t.Error(err)
	}
	if err := strictjson.Check([]byte(nested(64)), 1); err == nil {
		t.Error("64 levels within another one were accepted")
	}
}

// FuzzAcceptedTextsAreJSON compares the two readers where they have to agree.
func FuzzAcceptedTextsAreJSON(f *testing.F) {
	f.Add(`{"a":[1,2.5e3,"x\u00e9",true,null]}`)
	f.Add(`{"a":1,"a":2}`)
	f.Fuzz(func(t *testing.T, text string) {
		if strictjson.Check([]byte(text), 0) == nil && !json.Valid([]byte(text)) {
			t.Fatalf("%q was accepted and is not JSON", text)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	text := []byte(`{"photoId":"123","userId":"42","text":"hello world this is a text of some length","n":[1,2,3],"o":{"a":1}}`)
	b.Run("Check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := strictjson.Check(text, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		for b.Loop() {
			if !json.Valid(text) {
				b.Fatal("not valid")
			}
		}
	})
}
