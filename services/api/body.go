package api

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"posthorn/events/strictjson"
	"posthorn/services/internal/web"
)

// readBody reads at most maxBodyBytes and decodes the body. A body that
// declares a greater length is not read at all; one that declares none is read
// up to the limit.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *Problem) {
	encoding, p := contentEncoding(r)
	if p != nil {
		return nil, p
	}
	if r.ContentLength > maxBodyBytes {
		// Otherwise the server would read the rest to keep the connection.
		return nil, tooLarge().with("Connection", "close")
	}
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	var (
		body []byte
		err  error
	)
	limited := http.MaxBytesReader(w, r.Body, maxBodyBytes)
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(limited, body)
	} else {
		body, err = io.ReadAll(limited)
	}
	if err == nil {
		return decoded(r, encoding, body)
	}
	var (
		over    *http.MaxBytesError
		timeout net.Error
	)
	switch {
	case errors.As(err, &over):
		return nil, tooLarge()
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, problem(http.StatusRequestTimeout, "The body did not arrive in time.").with("Connection", "close")
	default:
		return nil, problem(http.StatusBadRequest, "The request body is incomplete.").with("Connection", "close")
	}
}

func tooLarge() *Problem {
	return problem(http.StatusRequestEntityTooLarge, "The body is longer than "+strconv.Itoa(maxBodyBytes)+" bytes.")
}

// mediaType is the type of the body, without its parameters, in lower case. A
// charset other than UTF-8 is refused, as nothing here would decode it.
func mediaType(r *http.Request, accepted ...string) (string, *Problem) {
	header := r.Header.Get("Content-Type")
	if header == "application/json" { // nearly always
		return header, nil
	}
	media, params, err := mime.ParseMediaType(header)
	if err != nil {
		return "", unsupported(header, accepted...)
	}
	switch charset := params["charset"]; strings.ToLower(charset) {
	case "", "utf-8", "utf8", "us-ascii":
		return media, nil
	default:
		return "", problem(http.StatusUnsupportedMediaType,
			"The body has the charset "+strconv.QuoteToASCII(shorten(charset))+"; want utf-8.",
			FieldIssue{Location: "header", Field: "Content-Type", Message: "has a charset other than utf-8"})
	}
}

func unsupported(given string, accepted ...string) *Problem {
	if len(accepted) == 0 {
		accepted = []string{"application/json"}
	}
	said := "The body has no Content-Type"
	if given != "" {
		said = "The body is " + strconv.QuoteToASCII(shorten(given))
	}
	return problem(http.StatusUnsupportedMediaType, said+"; want "+strings.Join(accepted, " or ")+".",
		FieldIssue{Location: "header", Field: "Content-Type", Message: "want " + strings.Join(accepted, " or ")}).
		with("Accept", strings.Join(accepted, ", "))
}

// check validates query and body before huma, which would answer a truncated
// body with 500, and accept ambiguous JSON and text that the database cannot
// hold.
func (a *API) check(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := checkQuery(r.URL.RawQuery); p != nil {
			p.write(w)
			return
		}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			next.ServeHTTP(w, r)
			return
		}
		body, p := readBody(w, r)
		if p == nil && len(body) > 0 {
			p = checkJSONBody(r, body)
		}
		if p != nil {
			p.write(w)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		r.Header.Set("Content-Type", "application/json")
		next.ServeHTTP(w, r)
	})
}

func checkQuery(raw string) *Problem {
	if raw == "" {
		return nil
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return problem(http.StatusBadRequest, "The query cannot be decoded.")
	}
	var issues []FieldIssue
	for name, values := range query {
		for _, value := range values {
			if message := web.TextProblem(value, maxBodyBytes); message != "" {
				issues = append(issues, FieldIssue{Location: "query", Field: strings.ToValidUTF8(name, "\uFFFD"), Message: message})
			}
		}
	}
	if issues != nil {
		return invalid(issues...)
	}
	return nil
}

func checkJSONBody(r *http.Request, body []byte) *Problem {
	media, p := mediaType(r)
	if p != nil {
		return p
	}
	accepted := []string{"application/json"}
	if r.Method == http.MethodPatch {
		accepted = append(accepted, "application/merge-patch+json")
	}
	known := false
	for _, a := range accepted {
		known = known || a == media
	}
	if !known {
		return unsupported(media, accepted...)
	}
	if err := strictjson.Check(body, 0); err != nil {
		return malformed(err)
	}
	return nil
}
