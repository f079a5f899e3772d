package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how many objects and arrays of a body may be inside one another.
const maxDepth = 64

// syntaxError says what is wrong with a JSON text, and where.
type syntaxError struct {
	path    string // such as data.tags[2]; empty for the text itself
	message string
}

func (e *syntaxError) Error() string {
	if e.path == "" {
		return e.message
	}
	return e.path + ": " + e.message
}

// under puts the place of the value that the error is in before its path.
func (e *syntaxError) under(prefix string) *syntaxError {
	if e != nil && prefix != "" {
		switch {
		case e.path == "":
			e.path = prefix
		case e.path[0] == '[':
			e.path = prefix + e.path
		default:
			e.path = prefix + "." + e.path
		}
	}
	return e
}

// member is a field of an object: its name and the bytes of its value.
type member struct {
	name string
	raw  []byte
}

// checkJSON accepts one JSON value that means the same to every reader
// (RFC 7493): UTF-8, no name twice in one object, no lone surrogates, no
// number beyond a double, and further no NUL character, which many stores
// cannot hold, and no more than maxDepth levels. encoding/json lets all of
// these pass or repairs them silently.
func checkJSON(data []byte) *syntaxError {
	if !utf8.Valid(data) {
		return &syntaxError{message: "is not UTF-8"}
	}
	s := scanner{data: data}
	s.space()
	if err := s.value(1); err != nil {
		return err
	}
	return s.end()
}

// parseObject checks the text as checkJSON does and returns the members of
// the object that it must be.
func parseObject(data []byte) ([]member, *syntaxError) {
	if !utf8.Valid(data) {
		return nil, &syntaxError{message: "is not UTF-8"}
	}
	s := scanner{data: data}
	s.space()
	if s.peek() != '{' {
		if err := s.value(1); err != nil {
			return nil, err
		}
		return nil, &syntaxError{message: "is not a JSON object"}
	}
	members := make([]member, 0, 8)
	if err := s.object(1, &members); err != nil {
		return nil, err
	}
	return members, s.end()
}

// parseArray checks the text as checkJSON does and returns the elements of the
// array that it must be, at most limit of them.
func parseArray(data []byte, limit int) ([][]byte, *syntaxError) {
	if !utf8.Valid(data) {
		return nil, &syntaxError{message: "is not UTF-8"}
	}
	s := scanner{data: data}
	s.space()
	if s.peek() != '[' {
		if err := s.value(1); err != nil {
			return nil, err
		}
		return nil, &syntaxError{message: "is not a JSON array"}
	}
	elements := make([][]byte, 0, 16)
	if err := s.array(1, &elements); err != nil {
		return nil, err
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if len(elements) > limit {
		return nil, &syntaxError{message: fmt.Sprintf("has %d elements, at most %d are allowed", len(elements), limit)}
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

func (s *scanner) fail(what string) *syntaxError {
	if s.pos >= len(s.data) {
		return &syntaxError{message: "is not JSON: it ends too early"}
	}
	return &syntaxError{message: fmt.Sprintf("is not JSON: %s at byte %d", what, s.pos)}
}

func (s *scanner) end() *syntaxError {
	s.space()
	if s.pos < len(s.data) {
		return &syntaxError{message: fmt.Sprintf("is not JSON: more follows after the value, at byte %d", s.pos)}
	}
	return nil
}

func (s *scanner) value(depth int) *syntaxError {
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

func (s *scanner) object(depth int, into *[]member) *syntaxError {
	if depth > maxDepth {
		return &syntaxError{message: fmt.Sprintf("is nested deeper than %d levels", maxDepth)}
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
		name := unquote(quoted)
		if !names.add(name) {
			return &syntaxError{path: name, message: "is given twice"}
		}
		s.space()
		if s.peek() != ':' {
			return s.fail("a colon is missing")
		}
		s.pos++
		s.space()
		start := s.pos
		if err := s.value(depth + 1); err != nil {
			return err.under(name)
		}
		if into != nil {
			*into = append(*into, member{name: name, raw: s.data[start:s.pos]})
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

func (s *scanner) array(depth int, into *[][]byte) *syntaxError {
	if depth > maxDepth {
		return &syntaxError{message: fmt.Sprintf("is nested deeper than %d levels", maxDepth)}
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
			return err.under("[" + strconv.Itoa(i) + "]")
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

// text passes over a string and returns it with its quotes.
func (s *scanner) text() ([]byte, *syntaxError) {
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

func (s *scanner) escape() *syntaxError {
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
		return &syntaxError{message: "has a NUL character (\\u0000) in it"}
	case unit >= 0xDC00 && unit <= 0xDFFF:
		return &syntaxError{message: "has half of a surrogate pair in it"}
	case unit >= 0xD800 && unit <= 0xDBFF:
		low, ok := s.hex(s.pos + 6)
		if !ok || low < 0xDC00 || low > 0xDFFF {
			return &syntaxError{message: "has half of a surrogate pair in it"}
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

func (s *scanner) number() *syntaxError {
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
		if _, err := strconv.ParseFloat(string(s.data[start:s.pos]), 64); err != nil {
			return &syntaxError{message: "is a number that is out of range"}
		}
	}
	return nil
}

// nameSet tells names that come twice. Nearly all objects are small, where
// looking through a slice is quicker than a map.
type nameSet struct {
	few  []string
	many map[string]struct{}
}

func (n *nameSet) add(name string) bool {
	if n.many != nil {
		if _, ok := n.many[name]; ok {
			return false
		}
		n.many[name] = struct{}{}
		return true
	}
	if slices.Contains(n.few, name) {
		return false
	}
	if n.few = append(n.few, name); len(n.few) > 16 {
		n.many = make(map[string]struct{}, 64)
		for _, have := range n.few {
			n.many[have] = struct{}{}
		}
	}
	return true
}

// unquote is the text of a string that the scanner has passed.
func unquote(quoted []byte) string {
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
