package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"posthorn/services/internal/signing"
	"posthorn/services/lab/site"
)

// System is a Posthorn with its own database and virtual host: all parts in one
// process.
type System struct {
	*Site
	// Addr is the API's address.
	Addr string

	database, address string
	// subscribed is the number of subscriptions that get every event.
	subscribed int
	metrics    string
	pprof      string
	env        []string
	log        *os.File
	process    *site.Process
}

// startSystem starts a new Posthorn.
func (s *Site) startSystem(ctx context.Context) (_ *System, err error) {
	name := s.newName()
	address, err := s.NewDatabase(ctx, name)
	if err != nil {
		return nil, err
	}
	y := &System{Site: s, database: name, address: address.String()}
	defer func() {
		if err != nil {
			err = errors.Join(err, y.close(ctx))
		}
	}()
	queues, err := s.NewVhost(ctx, name)
	if err != nil {
		return nil, err
	}
	addrs, err := site.FreeAddrs(ctx, 3)
	if err != nil {
		return nil, err
	}
	y.Addr, y.metrics, y.pprof = addrs[0], addrs[1], addrs[2]
	if y.log, err = os.Create(filepath.Join(s.config.Dir, name+".log")); err != nil { //nolint:gosec // in our own folder
		return nil, fmt.Errorf("make log: %w", err)
	}
	y.env = site.Environment(s.config.Dir, address.String(), queues, signing.GenerateKey(), "HTTP_ADDR="+y.Addr, "METRICS_ADDR="+y.metrics)
	if s.config.Profiles != "" {
		y.env = append(y.env, "POSTHORN_PPROF_ADDR="+y.pprof)
	}
	return y, y.start(ctx, "run")
}

// start starts a command of Posthorn and waits until it is ready.
func (y *System) start(ctx context.Context, command string) (err error) {
	y.process, err = site.StartProcess("posthorn", 0, func(int) *exec.Cmd {
		cmd := exec.Command(y.config.Binary, command) //nolint:gosec,noctx // the caller's own command; ended by stop
		cmd.Env, cmd.Stdout, cmd.Stderr = y.env, y.log, y.log
		return cmd
	})
	if err != nil {
		return err
	}
	pages := []string{y.Addr}
	if command == "run" {
		pages = append(pages, y.metrics)
	}
	for _, addr := range pages {
		if err := site.AwaitReady(ctx, 2*time.Minute, addr, y.process); err != nil {
			return fmt.Errorf("%w; see %s", err, y.log.Name())
		}
	}
	return nil
}

// stop ends the process as a deploy would.
func (y *System) stop(ctx context.Context) error { return y.process.Stop(ctx, time.Minute) }

// close ends the system at once and releases its resources.
func (y *System) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
	defer cancel()
	var errs []error
	if y.process != nil {
		errs = append(errs, y.process.Kill())
	}
	if y.log != nil {
		errs = append(errs, y.log.Close())
	}
	if y.subscribed > 500 {
		errs = append(errs, y.RabbitMQ.Wipe(ctx)) // much faster than deleting as many queues
	} else {
		errs = append(errs, y.DropVhost(ctx, y.database))
	}
	return errors.Join(append(errs, y.DropDatabase(ctx, y.database))...)
}

// subscribe subscribes the receiver's subscribers to all events.
func (y *System) subscribe(ctx context.Context, inFlight int, names ...string) error {
	return y.subscribeTo(ctx, inFlight, eventType, names...)
}

func (y *System) subscribeTo(ctx context.Context, inFlight int, types string, names ...string) error {
	for _, name := range names {
		err := site.Call(ctx, http.MethodPost, "http://"+y.Addr+"/subscription", y.subscription(inFlight, name, types), nil)
		if err != nil {
			return fmt.Errorf("subscribe %s: %w", name, err)
		}
		y.subscribed++
	}
	return nil
}

// appendSubscription appends the request for a subscription.
func (y *System) appendSubscription(dst []byte, name string, types ...string) []byte {
	text, err := json.Marshal(y.subscription(8, name, types...))
	if err != nil {
		return dst // the response has the error
	}
	return append(dst, text...)
}

func (y *System) subscription(inFlight int, name string, types ...string) map[string]any {
	return map[string]any{"url": "http://" + y.deliveries + "/" + name, "eventTypes": types, "maxInFlight": inFlight}
}

// cpu is what each process has used.
func (y *System) cpu() (CPU, error) { return y.Site.cpu(y.process.PID()) }

// cpu is what each process has used; that of Posthorn may not be there (0).
func (s *Site) cpu(ofPosthorn int) (CPU, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return nil, fmt.Errorf("read own CPU time: %w", err)
	}
	cpu := CPU{generator: time.Duration(used.Utime.Nano() + used.Stime.Nano())}
	for name, pid := range map[string]int{
		posthorn: ofPosthorn, postgresP: s.Postgres.PID(), rabbitmq: s.RabbitMQ.PID(), receiver: s.receiver.PID(),
	} {
		if pid == 0 {
			continue
		}
		var err error
		if cpu[name], err = site.CPUOf(pid); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return cpu, nil
}

// settle waits until the relay has reached the end of the log, so that its
// backlog does not count for the next measurement.
func (y *System) settle(ctx context.Context) error {
	deadline := time.Now().Add(3 * patience)
	for {
		lag, err := site.Metric(ctx, y.metrics, "posthorn_relay_lag_positions")
		if err != nil {
			return err
		}
		if lag == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for the relay: it is %v positions behind", lag)
		}
		if err := pauseUntil(ctx, time.Now().Add(100*time.Millisecond)); err != nil {
			return err
		}
	}
}

// profile takes a CPU profile of Posthorn until stop is called, if profiles are
// enabled.
func (y *System) profile(ctx context.Context, name string) (stop func() error) {
	if y.config.Profiles == "" {
		return func() error { return nil }
	}
	// The length of a profile has to be set beforehand, so this takes one per
	// second, and pprof adds up its files.
	ctx, cancel := context.WithCancel(ctx)
	var (
		wg     sync.WaitGroup
		failed error
	)
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			path := filepath.Join(y.config.Profiles, fmt.Sprintf("%s-%s-%02d.pprof", name, y.database, i))
			if err := y.fetchProfile(context.WithoutCancel(ctx), path); err != nil {
				failed = err
				return
			}
		}
	})
	return func() error { cancel(); wg.Wait(); return failed }
}

func (y *System) fetchProfile(ctx context.Context, path string) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+y.pprof+"/debug/pprof/profile?seconds=2", http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for profile: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask for profile: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	file, err := os.Create(path)                 //nolint:gosec // the caller's own folder
	if err != nil {
		return fmt.Errorf("keep profile: %w", err)
	}
	if _, err = io.Copy(file, response.Body); err != nil {
		err = fmt.Errorf("keep profile: %w", err)
	}
	return errors.Join(err, file.Close())
}
