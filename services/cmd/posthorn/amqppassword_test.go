package main

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// TestAMQPPassword shows that AMQP_PASSWORD needs no escaping, and that a
// password in the URL comes first.
func TestAMQPPassword(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ url, password, want string }{
		{"amqp://u@host:5672/", `a/b?c#d@e:f%20 g`, `a/b?c#d@e:f%20 g`},
		{"amqp://u:own@host:5672/", "other", "own"},
		{"amqp://u:@host:5672/", "other", ""},
		{"amqp://u@host:5672/", "", "guest"}, // the library's default
	} {
		address, err := brokerFlags{AMQPURL: test.url, Password: test.password}.url()
		if err != nil {
			t.Fatalf("%s with %q: %v", test.url, test.password, err)
		}
		uri, err := amqp.ParseURI(address)
		if err != nil {
			t.Fatalf("%s with %q: %v", test.url, test.password, err)
		}
		if uri.Username != "u" || uri.Password != test.want || uri.Host != "host" || uri.Vhost != "/" {
			t.Errorf("%s with %q: got user %q, password %q, host %q, vhost %q; want password %q",
				test.url, test.password, uri.Username, uri.Password, uri.Host, uri.Vhost, test.want)
		}
	}
}
