package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/secrets"
	"posthorn/services/internal/signing"
)

type secretsCmd struct {
	Status secretsStatusCmd `cmd:"" help:"Count the secrets sealed with each key of POSTHORN_SECRET_KEY. Exits with 3 if a key is missing."`
	Reseal secretsResealCmd `cmd:"" help:"Seal everything with the first key of POSTHORN_SECRET_KEY, so that the others can be removed."`
}

// existing is the ring in use: unlike a starting part, a command does not
// generate a key.
func (f keyFlags) existing() (*signing.Keyring, error) {
	if f.SecretKey == "" {
		if _, err := os.Stat(filepath.Join(f.DataDir, "secret.key")); err != nil {
			return nil, fmt.Errorf("POSTHORN_SECRET_KEY is not set, and there is no key in %s", f.DataDir)
		}
	}
	return f.keyring(access{})
}

type secretsStatusCmd struct {
	databaseFlags
	keyFlags
	JSON bool `name:"json" help:"Print a JSON object per key."`
}

// keyUse counts the values sealed with a key.
type keyUse struct {
	Key     string `json:"key"`
	State   string `json:"state"` // seals, opens or missing
	Secrets int64  `json:"secrets"`
	Answers int64  `json:"answers"`
}

func (c *secretsStatusCmd) Run(ctx context.Context, e *env) error {
	keys, err := c.existing()
	if err != nil {
		return err
	}
	pool, err := c.open("secrets", 1)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	uses, err := keyUses(ctx, pool, keys)
	if err != nil {
		return err
	}
	p := printer{w: e.out}
	missing := false
	for _, u := range uses {
		missing = missing || u.State == "missing"
		if c.JSON {
			line, err := json.Marshal(u)
			if err != nil {
				return fmt.Errorf("print: %w", err)
			}
			p.printf("%s\n", line)
			continue
		}
		what := map[string]string{
			"seals": "the first of POSTHORN_SECRET_KEY, which seals", "opens": "in POSTHORN_SECRET_KEY, opens old values",
			"missing": "NOT in POSTHORN_SECRET_KEY: its values cannot be opened",
		}[u.State]
		p.printf("key %+q, %s: %d secrets of subscriptions, %d responses kept for an Idempotency-Key\n", u.Key, what, u.Secrets, u.Answers)
	}
	if p.err == nil && missing {
		return errFindings
	}
	return p.err
}

// keyUses returns the uses of the ring's keys, in its order, followed by those of other keys.
func keyUses(ctx context.Context, q postgres.Queryer, keys *signing.Keyring) ([]keyUse, error) {
	sealed, err := secrets.Seals(ctx, q)
	if err != nil {
		return nil, err
	}
	var uses []keyUse
	for i, id := range keys.KeyIDs() {
		use := keyUse{Key: id, State: "opens"}
		if i == 0 {
			use.State = "seals"
		}
		if at := slices.IndexFunc(sealed, func(s secrets.SealedWith) bool { return s.KeyID == id }); at >= 0 {
			use.Secrets, use.Answers = sealed[at].Secrets, sealed[at].Answers
			sealed = slices.Delete(sealed, at, at+1)
		}
		uses = append(uses, use)
	}
	for _, s := range sealed {
		uses = append(uses, keyUse{Key: s.KeyID, State: "missing", Secrets: s.Secrets, Answers: s.Answers})
	}
	return uses, nil
}

type secretsResealCmd struct {
	databaseFlags
	keyFlags
	DryRun bool `help:"Print how much would be resealed, and change nothing."`
}

func (c *secretsResealCmd) Run(ctx context.Context, e *env) error {
	keys, err := c.existing()
	if err != nil {
		return err
	}
	pool, err := c.open("secrets", 2)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	if c.DryRun {
		uses, err := keyUses(ctx, pool, keys)
		if err != nil {
			return err
		}
		var old, missing int64
		for _, u := range uses {
			switch u.State {
			case "opens":
				old += u.Secrets + u.Answers
			case "missing":
				missing += u.Secrets + u.Answers
			}
		}
		_, err = fmt.Fprintf(e.out, "%d values would be sealed with key %s; %d cannot be opened.\n", old, keys.KeyID(), missing)
		return err
	}
	done, err := secrets.Reseal(ctx, pool, keys, func(r secrets.Resealed) {
		_, _ = fmt.Fprintf(e.errOut, "%d resealed, %d cannot be opened\n", r.Resealed, r.Unopened)
	})
	if err != nil {
		return fmt.Errorf("reseal: %w", err)
	}
	if _, err := fmt.Fprintf(e.out, "%d values are sealed with key %s now; %d cannot be opened.\n", done.Resealed, keys.KeyID(), done.Unopened); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	if done.Unopened > 0 {
		return errFindings
	}
	return nil
}
