// Package site has what the laboratory's commands share: a Postgres and a
// RabbitMQ of their own, processes that are looked after, addresses, calls, what
// a process uses, and a folder and a file for what was found.
//
// Whatever is started here is in a process group of its own, so that Ctrl-C is
// the command's to handle, and is gone after Kill. It fails with errors that
// name the server, process or file.
package site

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"

	"posthorn/services/internal/postgres"
	"posthorn/services/internal/privateserver"
)

// Servers are a Postgres and a RabbitMQ.
type Servers struct {
	Postgres *privateserver.Postgres
	RabbitMQ *privateserver.RabbitMQ
}

// Start starts both, side by side. RabbitMQ is not worried by a full disk or
// memory as soon as it usually is, unless its settings say so: the laboratory
// brings that about on purpose.
func Start(ctx context.Context, forPostgres, forRabbitMQ privateserver.Options) (*Servers, error) {
	settings := map[string]string{"disk_free_limit.absolute": "50MB", "vm_memory_high_watermark.absolute": "2GB"}
	maps.Copy(settings, forRabbitMQ.Settings)
	forRabbitMQ.Settings = settings
	s := &Servers{}
	both, starting := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		s.Postgres, err = privateserver.StartPostgres(starting, forPostgres)
		return err
	})
	both.Go(func() (err error) {
		s.RabbitMQ, err = privateserver.StartRabbitMQ(starting, forRabbitMQ)
		return err
	})
	if err := both.Wait(); err != nil {
		return nil, errors.Join(err, s.Kill()) //nolint:contextcheck // has to happen whatever ended
	}
	return s, nil
}

// Kill ends both at once; their data are not wanted any more.
func (s *Servers) Kill() error {
	var errs []error
	if s.RabbitMQ != nil {
		errs = append(errs, s.RabbitMQ.Kill())
	}
	if s.Postgres != nil {
		errs = append(errs, s.Postgres.Kill())
	}
	return errors.Join(errs...)
}

// NewDatabase makes an empty database and returns its address.
func (s *Servers) NewDatabase(ctx context.Context, name string) (*url.URL, error) {
	if err := s.administer(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	address, err := url.Parse(s.Postgres.URL())
	if err != nil {
		return nil, fmt.Errorf("read address of postgres: %w", err)
	}
	address.Path = "/" + name
	return address, nil
}

// DropDatabase drops a database, whoever is connected to it.
func (s *Servers) DropDatabase(ctx context.Context, name string) error {
	return s.administer(ctx, "DROP DATABASE "+name+" WITH (FORCE)")
}

func (s *Servers) administer(ctx context.Context, statement string) (err error) {
	admin, err := postgres.Open(s.Postgres.URL(), "laboratory", 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	if _, err := admin.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

// NewVhost makes a part of the broker that can be thrown away with all that is
// in it, and returns its address.
func (s *Servers) NewVhost(ctx context.Context, name string) (address string, err error) {
	err = errors.Join(
		s.Manage(ctx, http.MethodPut, "/vhosts/"+name, map[string]string{}, nil),
		s.Manage(ctx, http.MethodPut, "/permissions/"+name+"/"+s.RabbitMQ.User(),
			map[string]string{"configure": ".*", "write": ".*", "read": ".*"}, nil))
	return strings.TrimSuffix(s.RabbitMQ.URL(), "/") + "/" + name, err
}

// DropVhost deletes what NewVhost has made.
func (s *Servers) DropVhost(ctx context.Context, name string) error {
	return s.Manage(ctx, http.MethodDelete, "/vhosts/"+name, nil, nil)
}

// Manage calls the management API of RabbitMQ.
func (s *Servers) Manage(ctx context.Context, method, path string, body, answer any) error {
	return Call(ctx, method, strings.TrimSuffix(s.ManagementURL(), "/")+"/api"+path, body, answer)
}

// ManagementURL is the address of RabbitMQ's web page, with the user and the
// password.
func (s *Servers) ManagementURL() string {
	host, _ := strings.CutPrefix(s.RabbitMQ.ManagementURL(), "http://")
	return "http://" + url.UserPassword(s.RabbitMQ.User(), s.RabbitMQ.Password()).String() + "@" + host
}
