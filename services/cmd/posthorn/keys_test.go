package main

import (
	"encoding/base64"
	"os"
	"strings"
	"testing"
)

func TestThePublicKeyOfComposeIsRefusedWithAnAdminKey(t *testing.T) {
	t.Parallel()
	public := base64.StdEncoding.EncodeToString([]byte(publicKey))
	compose, err := os.ReadFile("../../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(compose), "POSTHORN_SECRET_KEY:-"+public) {
		t.Error("docker-compose.yml has another default")
	}
	own := base64.StdEncoding.EncodeToString([]byte("12345678901234567890123456789012"))
	for _, keys := range []string{public, " " + public, own + "," + public, own + ", " + public + " "} {
		f := keyFlags{SecretKey: keys}
		if _, err := f.keyring(access{adminKey: "0123456789abcdef"}); err == nil || !strings.Contains(err.Error(), "public") {
			t.Errorf("%q with an admin key: %v", keys, err)
		}
		if _, err := f.keyring(access{}); err != nil {
			t.Errorf("%q without an admin key: %v", keys, err)
		}
	}
	if _, err := (keyFlags{SecretKey: own}).keyring(access{adminKey: "0123456789abcdef"}); err != nil {
		t.Errorf("a private key: %v", err)
	}
}
