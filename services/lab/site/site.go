// Package site has the parts that the laboratory's commands share: private
// Postgres and RabbitMQ servers, supervised processes, addresses, calls,
// resource usage, and a folder and a file for results.
//
// Each process that it starts has its own process group, so that the command
// handles Ctrl-C, and is gone after Kill. It fails with errors that name the
// server, process or file.
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
	// Members are further nodes of RabbitMQ's cluster.
	Members []*privateserver.RabbitMQ
}

// Start starts both concurrently. RabbitMQ's disk and memory alarms come later
// than usual, unless its settings say otherwise: the laboratory triggers them
// deliberately.
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
		return nil, errors.Join(err, s.Kill()) //nolint:contextcheck // must run even if ctx has ended
	}
	return s, nil
}

// Kill ends all at once; their data is no longer needed.
func (s *Servers) Kill() error {
	var errs []error
	for _, node := range s.Members {
		errs = append(errs, node.Kill())
	}
	if s.RabbitMQ != nil {
		errs = append(errs, s.RabbitMQ.Kill())
	}
	if s.Postgres != nil {
		errs = append(errs, s.Postgres.Kill())
	}
	return errors.Join(errs...)
}

// NewDatabase creates an empty database and returns its address.
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

// DropDatabase drops a database, even if clients are connected to it.
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

// NewVhost creates a virtual host, which can be dropped with its contents, and
// returns its address.
func (s *Servers) NewVhost(ctx context.Context, name string) (address string, err error) {
	err = errors.Join(
		s.Manage(ctx, http.MethodPut, "/vhosts/"+name, map[string]string{}, nil),
		s.Manage(ctx, http.MethodPut, "/permissions/"+name+"/"+s.RabbitMQ.User(),
			map[string]string{"configure": ".*", "write": ".*", "read": ".*"}, nil))
	return strings.TrimSuffix(s.RabbitMQ.URL(), "/") + "/" + name, err
}

// DropVhost deletes a virtual host of NewVhost.
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
