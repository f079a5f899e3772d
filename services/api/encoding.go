package api

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"posthorn/events/strictjson"
)

// acceptedEncodings are the codings that a body may have.
const acceptedEncodings = "gzip, identity"

// contentEncoding is "gzip" or, for a plain body, "". Other codings are
// refused, and so are several: each would have to be decoded with a limit.
func contentEncoding(r *http.Request) (string, *Problem) {
	values := r.Header["Content-Encoding"]
	if len(values) == 0 { // nearly always
		return "", nil
	}
	var found []string
	for given := range strings.SplitSeq(strings.Join(values, ","), ",") {
		switch coding := strings.ToLower(strings.TrimSpace(given)); coding {
		case "", "identity":
		case "x-gzip": // another name for it (RFC 9110, section 8.4.1.3)
			found = append(found, "gzip")
		default:
			found = append(found, coding)
		}
	}
	switch {
	case len(found) == 0:
		return "", nil
	case len(found) == 1 && found[0] == "gzip":
		return "gzip", nil
	}
	given := shorten(strings.Join(found, ", "))
	return "", problem(http.StatusUnsupportedMediaType,
		"The body has the Content-Encoding "+strconv.QuoteToASCII(given)+"; want gzip once, or none.",
		FieldIssue{Location: "header", Field: "Content-Encoding", Message: "want gzip once, or none"}).
		with("Accept-Encoding", acceptedEncodings)
}

// decoded returns the decoded body without a byte order mark. It must not
// exceed the limit of other bodies.
func decoded(r *http.Request, encoding string, body []byte) ([]byte, *Problem) {
	if encoding == "gzip" && len(body) > 0 {
		var p *Problem
		if body, p = gunzip(body); p != nil {
			return nil, p
		}
		r.Header.Del("Content-Encoding")
	}
	return withoutMark(r, body)
}

func gunzip(body []byte) ([]byte, *Problem) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err == nil {
		var plain []byte
		plain, err = io.ReadAll(io.LimitReader(z, maxBodyBytes+1))
		if len(plain) > maxBodyBytes {
			return nil, problem(http.StatusRequestEntityTooLarge, "The body is longer than "+strconv.Itoa(maxBodyBytes)+" bytes once decompressed.")
		}
		if err == nil {
			return plain, nil
		}
	}
	said := "is not gzip"
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		said = "is truncated gzip"
	}
	return nil, problem(http.StatusBadRequest, "The body "+said+", although its Content-Encoding is gzip.",
		FieldIssue{Location: "header", Field: "Content-Encoding", Message: "says gzip, but the body " + said})
}

// withoutMark removes a UTF-8 byte order mark from a JSON body, where it means
// nothing (RFC 8259, section 8.1), and reports UTF-16 and UTF-32 by name.
func withoutMark(r *http.Request, body []byte) ([]byte, *Problem) {
	if len(body) < 2 || body[0] > 0 && body[0] < 0x80 && body[1] != 0 || !strings.Contains(strings.ToLower(r.Header.Get("Content-Type")), "json") {
		return body, nil
	}
	switch {
	case body[0] == 0xef && bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return body[3:], nil
	case body[0] == 0xff && body[1] == 0xfe, body[0] == 0xfe && body[1] == 0xff, body[0] == 0, body[1] == 0:
		return nil, malformed(&strictjson.Error{Message: "is UTF-16 or UTF-32, not UTF-8: encode it as UTF-8"})
	}
	return body, nil
}
