// Package strictjson reads JSON texts that mean the same to every reader (RFC
// 7493), and refuses all others with an error that gives the reason and the
// place.
//
// encoding/json accepts duplicate names, lone surrogates, NUL characters and
// any nesting, or repairs them silently. This package decodes nothing: its
// results are slices of the input.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxDepth limits how deeply objects and arrays may nest.
const MaxDepth = 64

// Error says why a JSON text is refused, and where.
type Error struct {
	Path    string // such as data.tags[2]; empty for the text itself
	Message string
}

func (e *Error) Error() string {
	if e.Path == "" {
		return e.Message
	}
	return e.Path + ": " + e.Message
}

// Under prefixes the error's path with the place of the value that contains it.
func (e *Error) Under(prefix string) *Error {
	if e != nil && prefix != "" {
		switch {
		case e.Path == "":
			e.Path = prefix
		case e.Path[0] == '[':
			e.Path = prefix + e.Path
		default:
			e.Path = prefix + "." + e.Path
		}
	}
	return e
}

// Member is a field of an object: its name and the bytes of its value.
type Member struct {
	Name string
	Raw  []byte
}

// Check accepts one JSON value in UTF-8 without duplicate names in an object,
// lone surrogates or numbers beyond a double. It also refuses NUL characters,
// which many stores cannot hold, and more than MaxDepth levels, including the
// levels around the value.
func Check(data []byte, around int) *Error {
	if !utf8.Valid(data) {
		return &Error{Message: "is not UTF-8"}
	}
	s := scanner{data: data}
	s.space()
	if err := s.value(around + 1); err != nil {
		return err
	}
	return s.end()
}

// Object checks the text like Check, requires an object and returns its
// members.
func Object(data []byte) ([]Member, *Error) {
	if !utf8.Valid(data) {
		return nil, &Error{Message: "is not UTF-8"}
	}
	s := scanner{data: data}
	s.space()
	if s.peek() != '{' {
		if err := s.value(1); err != nil {
			return nil, err
		}
		return nil, &Error{Message: "is not a JSON object"}
	}
	members := make([]Member, 0, 8)
	if err := s.object(1, &members); err != nil {
		return nil, err
	}
	return members, s.end()
}

// Array checks the text like Check, requires an array of at most limit elements
// and returns them. The array does not count as one of their levels.
func Array(data []byte, limit int) ([][]byte, *Error) {
	if !utf8.Valid(data) {
		return nil, &Error{Message: "is not UTF-8"}
	}
	s := scanner{data: data}
	s.space()
	if s.peek() != '[' {
		if err := s.value(1); err != nil {
			return nil, err
		}
		return nil, &Error{Message: "is not a JSON array"}
	}
	elements := make([][]byte, 0, 16)
	if err := s.array(0, &elements); err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if len(elements) > limit {
		return nil, &Error{Message: fmt.Sprintf("has %d elements, at most %d are allowed", len(elements), limit)}
	}
	return elements, nil
}

type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) fail(what string) *Error {
	if s.pos >= len(s.data) {
		return &Error{Message: "is not JSON: it ends too early"}
	}
	return &Error{Message: fmt.Sprintf("is not JSON: %s at byte %d", what, s.pos)}
}

func (s *scanner) end() *Error {
	s.space()
	if s.pos < len(s.data) {
		return &Error{Message: fmt.Sprintf("is not JSON: more follows after the value, at byte %d", s.pos)}
	}
	return nil
}

func (s *scanner) value(depth int) *Error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(depth, nil)
	case c == '[':
		return s.array(depth, nil)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
			s.pos += len(word)
			return nil
		}
	}
	return s.fail("a value is missing")
}

func (s *scanner) object(depth int, into *[]Member) *Error {
	if depth > MaxDepth {
		return &Error{Message: fmt.Sprintf("is nested deeper than %d levels", MaxDepth)}
	}
	var names nameSet
	s.pos++
	s.space()
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.fail("a field name is missing")
		}
		quoted, err := s.text()
		if err != nil {
			return err
		}
		name := quoted[1 : len(quoted)-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			name = []byte(Text(quoted))
		}
		if !names.add(name) {
			return &Error{Path: string(name), Message: "is given twice"}
		}
		s.space()
		if s.peek() != ':' {
			return s.fail("a colon is missing")
		}
		s.pos++
		s.space()
		start := s.pos
		if err := s.value(depth + 1); err != nil {
			return err.Under(string(name))
		}
		if into != nil {
			*into = append(*into, Member{Name: string(name), Raw: s.data[start:s.pos]})
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case '}':
			s.pos++
			return nil
		default:
			return s.fail("a comma or brace is missing")
		}
	}
}

func (s *scanner) array(depth int, into *[][]byte) *Error {
	if depth > MaxDepth {
		return &Error{Message: fmt.Sprintf("is nested deeper than %d levels", MaxDepth)}
	}
	s.pos++
	s.space()
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for i := 0; ; i++ {
		start := s.pos
		if err := s.value(depth + 1); err != nil {
			return err.Under("[" + strconv.Itoa(i) + "]")
		}
		if into != nil {
			*into = append(*into, s.data[start:s.pos])
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
			s.space()
		case ']':
			s.pos++
			return nil
		default:
			return s.fail("a comma or bracket is missing")
		}
	}
}

// text scans a string and returns it with its quotes.
func (s *scanner) text() ([]byte, *Error) {
	start := s.pos
	s.pos++
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start:s.pos], nil
		case c < ' ':
			return nil, s.fail("a control character in a string")
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		default:
			s.pos++
		}
	}
	return nil, s.fail("")
}

func (s *scanner) escape() *Error {
	if s.pos+1 >= len(s.data) {
		s.pos = len(s.data)
		return s.fail("")
	}
	switch s.data[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return nil
	case 'u':
	default:
		return s.fail("an unknown escape in a string")
	}
	unit, ok := s.hex(s.pos)
	switch {
	case !ok:
		return s.fail("a malformed \\u escape")
	case unit == 0:
		return &Error{Message: "has a NUL character (\\u0000) in it"}
	case unit >= 0xDC00 && unit <= 0xDFFF:
		return &Error{Message: "has half of a surrogate pair in it"}
	case unit >= 0xD800 && unit <= 0xDBFF:
		low, ok := s.hex(s.pos + 6)
		if !ok || low < 0xDC00 || low > 0xDFFF {
			return &Error{Message: "has half of a surrogate pair in it"}
		}
		s.pos += 6
	}
	s.pos += 6
	return nil
}

// hex reads the \uXXXX at a position.
func (s *scanner) hex(at int) (uint64, bool) {
	if at+6 > len(s.data) || s.data[at] != '\\' || s.data[at+1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(s.data[at+2:at+6]), 16, 16)
	return unit, err == nil
}

func (s *scanner) number() *Error {
	start := s.pos
	digits := func() bool {
		from := s.pos
		for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
			s.pos++
		}
		return s.pos > from
	}
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !digits() {
		return s.fail("a digit is missing")
	}
	if s.peek() == '.' {
		s.pos++
		if !digits() {
			return s.fail("a digit is missing")
		}
	}
	exponent := false
	if c := s.peek(); c == 'e' || c == 'E' {
		exponent = true
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !digits() {
			return s.fail("a digit is missing")
		}
	}
	if exponent || s.pos-start > 300 {
		if _, err := strconv.ParseFloat(string(s.data[start:s.pos]), 64); err != nil || tiny(s.data[start:s.pos]) {
			return &Error{Message: "is a number that is out of range"}
		}
	}
	return nil
}

// tiny reports whether the exponent is below -9999. Such a number is 0 to most
// readers, and out of range for Postgres' numeric.
func tiny(number []byte) bool {
	_, exponent, ok := bytes.Cut(bytes.ToLower(number), []byte("e-"))
	return ok && len(bytes.TrimLeft(exponent, "0")) > 4
}

// nameSet detects duplicate names. Nearly all objects are small, and for those
// an array is faster than a map.
type nameSet struct {
	few  [16][]byte
	n    int
	many map[string]struct{}
}

func (s *nameSet) add(name []byte) bool {
	if s.many != nil {
		if _, ok := s.many[string(name)]; ok {
			return false
		}
		s.many[string(name)] = struct{}{}
		return true
	}
	for _, have := range s.few[:s.n] {
		if bytes.Equal(have, name) {
			return false
		}
	}
	if s.n < len(s.few) {
		s.few[s.n] = name
		s.n++
		return true
	}
	s.many = make(map[string]struct{}, 64)
	for _, have := range s.few {
		s.many[string(have)] = struct{}{}
	}
	s.many[string(name)] = struct{}{}
	return true
}

// Text is the text of a checked string, which is passed with its quotes.
func Text(quoted []byte) string {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	var text string
	if json.Unmarshal(quoted, &text) != nil {
		return strings.ToValidUTF8(string(inner), "") // the scanner has checked it
	}
	return text
}
