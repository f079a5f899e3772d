// Withservers runs a command with a private Postgres and RabbitMQ.
//
//	withservers [flags] command [argument ...]
//
// Both use a temporary folder that is removed at the end. The command gets
// their addresses in DATABASE_URL, AMQP_URL and RABBITMQ_MANAGEMENT_URL, and
// its exit status is ours; 125 means that the servers could not be started, 2
// that the flags were invalid. A signal is passed on to the command, and the
// servers end after it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"posthorn/services/internal/privateserver"
	"posthorn/services/lab/site"
)

const (
	startTimeout = 2 * time.Minute

	statusUsage     = 2
	statusNoServers = 125
	statusSignal    = 128
)

func main() {
	status, err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "withservers:", err)
	}
	os.Exit(status)
}

type options struct {
	dir     string
	chroot  string
	durable bool
	verbose bool
	command []string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("withservers", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dir, "dir", "", "create the servers' folder in this `folder` instead of the system's temporary one")
	flags.StringVar(&o.chroot, "chroot", "", "run the servers of the root file system in this `folder` (requires root)")
	flags.BoolVar(&o.durable, "durable", false, "leave Postgres's fsync on")
	flags.BoolVar(&o.verbose, "verbose", false, "log the servers' steps")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if o.command = flags.Args(); len(o.command) == 0 {
		return o, errors.New("no command given")
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (status int, err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return statusUsage, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	parent := o.dir
	if o.chroot != "" && parent == "" {
		parent = filepath.Join(o.chroot, "srv")
	}
	dir, remove, err := site.Folder(parent, "posthorn-servers-")
	if err != nil {
		return statusNoServers, err
	}
	defer func() { err = errors.Join(err, remove()) }()

	servers, err := start(ctx, o, dir, stderr, signals)
	if servers != nil {
		// Their data is removed too, so an orderly stop would only cost seconds.
		defer func() { err = errors.Join(err, servers.Kill()) }() //nolint:contextcheck // must run even if ctx has ended
	}
	if err != nil {
		return statusNoServers, err
	}

	cmd := exec.CommandContext(ctx, o.command[0], o.command[1:]...) //nolint:gosec // its purpose is to run the command
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	cmd.Env = append(os.Environ(),
		"DATABASE_URL="+servers.Postgres.URL(),
		"AMQP_URL="+servers.RabbitMQ.URL(),
		"RABBITMQ_MANAGEMENT_URL="+servers.ManagementURL(),
	)
	return attend(cmd, signals)
}

// start starts the servers. A signal meanwhile is an error, and the servers may
// still be running then.
func start(ctx context.Context, o options, dir string, stderr io.Writer, signals <-chan os.Signal) (*site.Servers, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	logger := slog.New(slog.DiscardHandler)
	if o.verbose {
		logger = slog.New(slog.NewTextHandler(stderr, nil))
	}
	settings := map[string]string{"max_connections": "500", "shared_buffers": "256MB"}
	if !o.durable {
		settings["fsync"], settings["full_page_writes"], settings["synchronous_commit"] = "off", "off", "off"
	}
	interrupted := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		defer close(interrupted)
		select {
		case <-started:
		case sig := <-signals:
			cancel()
			interrupted <- fmt.Errorf("interrupted by %v", sig)
		}
	}()
	servers, err := site.Start(ctx,
		privateserver.Options{Dir: filepath.Join(dir, "postgres"), Chroot: o.chroot, Logger: logger, Settings: settings},
		privateserver.Options{Dir: filepath.Join(dir, "rabbitmq"), Chroot: o.chroot, Logger: logger})
	close(started)
	return servers, errors.Join(err, <-interrupted)
}

// attend runs the command to its end and passes signals on to it. The terminal
// sends Ctrl-C to the command as well as to us, so for that it only waits.
func attend(cmd *exec.Cmd, signals <-chan os.Signal) (int, error) {
	if err := cmd.Start(); err != nil {
		return statusNoServers, fmt.Errorf("start command: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return statusOf(err)
		case sig := <-signals:
			if sig == syscall.SIGINT {
				continue
			}
			if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return statusNoServers, fmt.Errorf("pass signal on: %w", err)
			}
		}
	}
}

func statusOf(err error) (int, error) {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		if err != nil {
			return statusNoServers, fmt.Errorf("run command: %w", err)
		}
		return 0, nil
	}
	if wait, ok := exit.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return statusSignal + int(wait.Signal()), nil
	}
	return exit.ExitCode(), nil
}
