package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// ErrForeignPage is returned by CheckOrigin.
var ErrForeignPage = errors.New("request was made by a page of another origin")

// CheckOrigin refuses a request that changes something, by any method, if a
// page of another origin made a browser send it. It accepts typed addresses,
// pages of this origin and clients other than browsers.
//
// A browser says so in Sec-Fetch-Site, which it omits over plain HTTP to
// another machine; there an Origin or a Referer of another host shows it.
func CheckOrigin(r *http.Request) error {
	// The standard library lets safe methods pass, but these are not safe.
	unsafe := *r
	unsafe.Method = http.MethodPost
	if http.NewCrossOriginProtection().Check(&unsafe) != nil {
		return ErrForeignPage
	}
	referer := r.Header.Get("Referer")
	if referer == "" || r.Header.Get("Sec-Fetch-Site") != "" || r.Header.Get("Origin") != "" {
		return nil
	}
	if u, err := url.Parse(referer); err != nil || !strings.EqualFold(u.Host, r.Host) {
		return ErrForeignPage
	}
	return nil
}
