// Package web protects listeners that browsers or strangers can reach: it
// refuses requests that a page of another origin makes a browser send, and
// counts and throttles wrong keys.
//
// It promises that a refused request reaches no handler, and gets a problem
// (RFC 9457) that says what to do; that wrong keys never delay the right one;
// and that its memory is bounded.
package web

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Hosts are the names that requests to a listener may use. A page whose own
// name leads to this machine (DNS rebinding) uses that name, and the browser
// lets it read the response.
type Hosts struct{ names []string }

// ParseHosts parses names, such as "posthorn.example.com", without a port. It
// adds the host of addr, a listen address, if that is a name.
func ParseHosts(names []string, addr string) (Hosts, error) {
	var h Hosts
	for _, name := range names {
		host := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(name)), ".")
		if !isName(host) {
			return Hosts{}, fmt.Errorf("invalid host %q: want a name such as posthorn.example.com, without a scheme or port", name)
		}
		h.names = append(h.names, host)
	}
	if host, _, err := net.SplitHostPort(addr); err == nil && isName(strings.ToLower(host)) {
		h.names = append(h.names, strings.ToLower(host))
	}
	return h, nil
}

// Admit reports whether the value of a Host header is an IP address, localhost
// or a name below it, or one of the names, with any port.
func (h Hosts) Admit(host string) bool {
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		if strings.Trim(host[i+1:], "0123456789") != "" {
			return false
		}
		host = host[:i]
	}
	if literal, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(literal, "]"))
		return err == nil && ip.Is6() && strings.HasSuffix(literal, "]")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Is4()
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	return isName(name) && (name == "localhost" || strings.HasSuffix(name, ".localhost") || slices.Contains(h.names, name))
}

func isName(name string) bool {
	return name != "" && len(name) <= 253 && !strings.ContainsFunc(name, func(c rune) bool {
		return c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z')
	})
}

// Handler passes on requests to one of the names. Others get a 421.
func (h Hosts) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.Admit(r.Host) {
			Refuse(w, http.StatusMisdirectedRequest, "Without a key this server answers only to its IP address, localhost and the names in POSTHORN_HOSTS: "+
				"add the name of the Host header there if it is yours.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Refuse responds with a problem.
func Refuse(w http.ResponseWriter, status int, detail string) {
	body, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, detail})
	if err != nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an error means that the client is gone
}
