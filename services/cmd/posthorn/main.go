// Command posthorn turns a product into an open platform: its events become
// signed webhooks for subscribers.
//
// It only parses, builds, runs and exits: with 0 after a normal stop, 1 after a
// failure, 2 for an invalid command line, and 3 if a check found problems. No
// other package reads the environment.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"posthorn/services/internal/account"
	"posthorn/services/internal/failpoint"
	"posthorn/services/internal/process"
)

func main() {
	ctx, stop := process.Signals(context.Background())
	defer stop()
	if err := failpoint.Arm(os.Getenv("POSTHORN_FAILPOINTS")); err != nil {
		os.Exit(fail(os.Stderr, err, 2))
	}
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// cli is the command line. Each field is a command; shared flags are in the
// structs that they embed.
type cli struct {
	LogLevel  slog.Level `help:"Minimum log level: debug, info, warn or error." default:"info" env:"POSTHORN_LOG_LEVEL"`
	LogFormat string     `help:"Log format: ${enum}." enum:"text,json" default:"text" env:"POSTHORN_LOG_FORMAT"`

	Run      runCmd      `cmd:"" help:"Run API, relay and delivery in one process."`
	API      apiCmd      `cmd:"" name:"api" help:"Run the HTTP API."`
	Relay    relayCmd    `cmd:"" help:"Run the relay: forward the outbox to RabbitMQ. One relay is active; others stand by."`
	Delivery deliveryCmd `cmd:"" help:"Run the delivery workers: consume the queues and send requests to subscribers."`
	Inbox    inboxCmd    `cmd:"" help:"Run the inbox: a test subscriber that shows the requests it receives."`
	Dev      devCmd      `cmd:"" help:"Run everything, with a private Postgres and RabbitMQ and an inbox."`
	Migrate  migrateCmd  `cmd:"" help:"Migrate the database schema to the latest version."`
	Photos   photosCmd   `cmd:"" help:"Maintain the like counts."`
	Replay   replayCmd   `cmd:"" help:"Deliver past events again, to one subscription or to any URL."`
	Dead     deadCmd     `cmd:"" name:"dead-letters" help:"List, show, redrive and purge dead letters."`
	Audit    auditCmd    `cmd:"" help:"Compare the ledger with the log: find lost, duplicated, unexpected and misrouted deliveries."`
	Outbox   outboxCmd   `cmd:"" help:"Read, export and import the log of events."`
	Explain  explainCmd  `cmd:"" help:"Explain the status of an event for each subscription."`
	Secrets  secretsCmd  `cmd:"" help:"Inspect and rotate the key that seals signing secrets."`
	Doctor   doctorCmd   `cmd:"" help:"Check the database, the broker and the settings of an installation."`
	Health   healthCmd   `cmd:"" name:"healthcheck" help:"Query the health endpoint of a running part; for containers."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// env is the environment of a command.
type env struct {
	by     account.Actor
	out    io.Writer // for results
	errOut io.Writer // for progress
	logger *slog.Logger
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	shown, told := &terminal{w: out}, &terminal{w: errOut}
	defer shown.flush()
	defer told.flush()
	return runOn(ctx, args, shown, told)
}

// runOn is run with writers that are safe to display.
func runOn(ctx context.Context, args []string, out, errOut io.Writer) int {
	var c cli
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("posthorn"),
		kong.Description("Events in, signed webhooks out. Every flag can also be set by the environment variable shown with it."),
		kong.Writers(out, errOut),
		kong.Exit(func(code int) { exit = code }),
		kong.UsageOnError(),
		kong.NamedMapper("address", kong.MapperFunc(address)),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return fail(errOut, err, 2)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exit >= 0 {
		return exit // help was requested and printed
	}
	if err != nil {
		return fail(errOut, err, 2)
	}
	logger := slog.New(c.handler(errOut))
	slog.SetDefault(logger)
	log.SetFlags(0)
	log.SetOutput(standardLog{logger}) // net/http has no other way to report problems
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(&env{by: account.Operator(), out: out, errOut: errOut, logger: logger})
	if status, ok := errors.AsType[exitError](err); ok {
		return int(status)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fail(errOut, err, 1)
	}
	return 0
}

func (c *cli) handler(w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

func fail(w io.Writer, err error, code int) int {
	_, _ = fmt.Fprintf(w, "posthorn: %v\n", err)
	return code
}

// version is set when building: -ldflags "-X main.version=...".
var version string

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

type versionCmd struct{}

func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.out, "posthorn", versionText())
	return err
}
