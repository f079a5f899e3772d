package target

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrInvalidURL is wrapped by errors of ValidateURL. The text after it gives
// the reason, without the URL, and can be shown to the user.
var ErrInvalidURL = errors.New("invalid URL")

const maxURLLen = 2048

// ValidateURL reports why raw cannot be a subscription's URL. It does not check
// whether its host may be reached, since a name can point elsewhere by the time
// of the attempt: the Guard decides that on every connect.
func ValidateURL(raw string) error {
	_, err := ParseURL(raw)
	return err
}

// NormalizeURL returns raw with its host as it is looked up, sent and shown: in
// lower case and, in another script, as UTS 46 maps it to ASCII
// ("http://B\u00dcCHER.test/" is "http://xn--bcher-kva.test/"). It fails like
// ValidateURL.
func NormalizeURL(raw string) (string, error) {
	u, err := ParseURL(raw)
	if err != nil {
		return "", err
	}
	rest, _ := strings.CutPrefix(raw[len(u.Scheme):], "://")
	host := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		host = rest[:i]
	}
	// The rest after the host stays byte for byte.
	return u.Scheme + "://" + u.Host + rest[len(host):], nil
}

func invalidURL(why string) error { return fmt.Errorf("%w: %s", ErrInvalidURL, why) }

// ParseURL parses a subscription's URL, with its host normalised like NormalizeURL.
func ParseURL(raw string) (*url.URL, error) {
	switch {
	case raw == "":
		return nil, invalidURL("it is empty")
	case len(raw) > maxURLLen:
		return nil, invalidURL("it is longer than 2048 bytes")
	case !utf8.ValidString(raw):
		return nil, invalidURL("it is not UTF-8")
	case strings.ContainsFunc(raw, forbiddenInURL):
		return nil, invalidURL("it has a space, a backslash or a control character in it")
	case strings.Contains(raw, "#"):
		return nil, invalidURL("it has a fragment (#)")
	case hasEscapedControl(raw):
		return nil, invalidURL("it has an escaped control character in it")
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's error quotes the URL, which may carry a token.
		return nil, invalidURL("it cannot be parsed")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, invalidURL("it must begin with http:// or https://")
	case u.Opaque != "":
		return nil, invalidURL("it must begin with http:// or https://")
	case u.User != nil:
		return nil, invalidURL("it has a user name or password in it")
	case u.Hostname() == "":
		return nil, invalidURL("it has no host")
	}
	if err := validatePort(u); err != nil {
		return nil, err
	}
	if err := normalizeHost(u); err != nil {
		return nil, err
	}
	return u, nil
}

func validatePort(u *url.URL) error {
	port := u.Port()
	if port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return invalidURL("its port is empty")
		}
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return invalidURL("its port is not between 1 and 65535")
	}
	if badPort(int(n)) {
		return invalidURL("its port belongs to another protocol and is refused")
	}
	return nil
}

// normalizeHost sets the URL's host to the form for DNS, TLS and the Host
// header, or returns the reason if it is invalid.
func normalizeHost(u *url.URL) error {
	host := u.Hostname()
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() {
			return invalidURL("its host is not an IPv6 address")
		}
		if addr.Zone() != "" {
			return invalidURL("its host is an address with a zone")
		}
		u.Host = strings.ToLower(u.Host)
		return nil
	}
	name, err := asciiHost(host)
	if err != nil {
		return err
	}
	// A host that ends in a number is an IPv4 address (WHATWG URL). Programs
	// accept many spellings, such as 2130706433, 0177.0.0.1, 0x7f.1 and 127.1;
	// only the common one is accepted here.
	relative := strings.TrimSuffix(name, ".")
	if isNumber(relative[strings.LastIndexByte(relative, '.')+1:]) {
		if addr, err := netip.ParseAddr(name); err != nil || !addr.Is4() {
			return invalidURL("its host is a number but not an IPv4 address of the form 192.0.2.1")
		}
	}
	if port := u.Port(); name != host && port != "" {
		u.Host = name + ":" + port
	} else if name != host {
		u.Host = name
	}
	return nil
}

func isNumber(label string) bool {
	digits := func(r rune) bool { return r < '0' || r > '9' }
	if !strings.ContainsFunc(label, digits) {
		return true
	}
	hex, ok := strings.CutPrefix(strings.ToLower(label), "0x")
	return ok && !strings.ContainsFunc(hex, func(r rune) bool {
		return digits(r) && (r < 'a' || r > 'f')
	})
}

func forbiddenInURL(r rune) bool {
	return r <= ' ' || r == '\\' || r == 0x7f || unicode.IsControl(r) || unicode.IsSpace(r)
}

// hasEscapedControl finds %00 to %1f and %7f. None of our code would decode
// them, but a server behind the receiver's proxy may.
func hasEscapedControl(raw string) bool {
	for i := 0; i+2 < len(raw); i++ {
		if raw[i] != '%' {
			continue
		}
		n, err := strconv.ParseUint(raw[i+1:i+3], 16, 8)
		if err == nil && (n < ' ' || n == 0x7f) {
			return true
		}
	}
	return false
}
