package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"posthorn/services/lab/site"
)

// Accepted is a line of the producer's file: one before the event is sent, and
// one with its position after a 2xx.
type Accepted struct {
	ID       string    `json:"id"`
	Type     string    `json:"type"`
	SHA256   string    `json:"sha256"` // of the data
	Position int64     `json:"position,omitempty"`
	OK       bool      `json:"ok,omitempty"`
	At       time.Time `json:"at"`
}

// journal is a file of JSON lines, which survives this process.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

func newJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // in the suite's folder
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	return &journal{file: f}, nil
}

func (j *journal) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode line: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }

// readJournal reads the lines of a file.
func readJournal[T any](path string) ([]T, error) {
	content, err := os.ReadFile(path) //nolint:gosec // in the suite's folder
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	var lines []T
	decoder := json.NewDecoder(bytes.NewReader(content))
	for {
		var line T
		switch err := decoder.Decode(&line); {
		case errors.Is(err, io.EOF):
			return lines, nil
		case err != nil:
			return nil, fmt.Errorf("read journal %s: %w", path, err)
		}
		lines = append(lines, line)
	}
}

// Producer appends events through the API until its context ends, and records
// each one before it is sent and again when it was accepted. It repeats a
// failed request with the same id, like a producer with idempotency keys.
type Producer struct {
	URL   string // of the API
	Types []string
	Rate  int // events in a second
	// Prefix makes the ids unique to this producer.
	Prefix string
	// Padding is the number of additional bytes of data.
	Padding int
	// Keyed sends the id as Idempotency-Key and none in the event.
	Keyed bool

	journal  *journal
	next     atomic.Int64
	accepted atomic.Int64
	refused  atomic.Int64 // permanent errors, which must not happen
	failed   atomic.Int64 // requests that had to be repeated
}

// NewProducer returns a producer that writes to the file.
func NewProducer(url, path, prefix string, rate int, types ...string) (*Producer, error) {
	j, err := newJournal(path)
	if err != nil {
		return nil, err
	}
	return &Producer{URL: url, Types: types, Rate: rate, Prefix: prefix, journal: j}, nil
}

// Accepted returns the number of accepted events so far.
func (p *Producer) Accepted() int { return int(p.accepted.Load()) }

// Run produces until ctx ends, and then until everything that it began is accepted.
func (p *Producer) Run(ctx context.Context) error {
	const tick = 20 * time.Millisecond
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	slots := make(chan struct{}, 64)
	errs := make(chan error, cap(slots))
	var group sync.WaitGroup
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	credit := 0.0
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-ticker.C:
		}
		// Events that could not be sent while the API was down are not made up for.
		for credit = min(credit+float64(p.Rate)*tick.Seconds(), float64(cap(slots))); credit >= 1 && ctx.Err() == nil; credit-- {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				continue
			}
			group.Go(func() {
				defer func() { <-slots }()
				if err := p.produce(context.WithoutCancel(ctx), client); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			})
		}
	}
	group.Wait()
	select {
	case err := <-errs:
		return errors.Join(err, p.journal.close())
	default:
		return p.journal.close()
	}
}

// produce sends one event until it is accepted.
func (p *Producer) produce(ctx context.Context, client *http.Client) error {
	n := p.next.Add(1)
	// Deliberately odd bytes, which have to arrive unchanged.
	data := fmt.Sprintf(`{"n": %d, "r":%d,"text":"\u00e9\n☃ %s"}`, n, rand.Uint64(), strings.Repeat("x", p.Padding)) //nolint:gosec // no secret
	sum := sha256.Sum256([]byte(data))
	e := Accepted{
		ID: p.Prefix + strconv.FormatInt(n, 10), Type: p.Types[int(n)%len(p.Types)], SHA256: hex.EncodeToString(sum[:]), At: time.Now(),
	}
	if err := p.journal.write(e); err != nil {
		return err
	}
	body, key := fmt.Sprintf(`{"id":%q,"type":%q,"data":%s}`, e.ID, e.Type, data), ""
	if p.Keyed {
		body, key = fmt.Sprintf(`{"type":%q,"data":%s}`, e.Type, data), e.ID
	}
	deadline := time.Now().Add(2 * time.Minute)
	for {
		position, err := p.post(ctx, client, body, key)
		if err == nil {
			e.Position, e.OK, e.At = position, true, time.Now()
			if err := p.journal.write(e); err != nil {
				return err
			}
			p.accepted.Add(1)
			return nil
		}
		if errors.Is(err, errRefused) {
			p.refused.Add(1)
			return err
		}
		p.failed.Add(1)
		if time.Now().After(deadline) {
			return fmt.Errorf("event %s is not accepted: %w", e.ID, err)
		}
		site.Pause(ctx, 100*time.Millisecond)
	}
}

// errRefused is a permanent error response.
var errRefused = errors.New("event was refused")

func (p *Producer) post(ctx context.Context, client *http.Client, body, key string) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL+"/events", strings.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, fmt.Errorf("post event: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // read to its end
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, fmt.Errorf("read answer: %w", err)
	}
	var answer struct {
		Position int64 `json:"position"`
	}
	switch {
	case response.StatusCode/100 == 2:
		if err := json.Unmarshal(text, &answer); err != nil || answer.Position == 0 {
			return 0, fmt.Errorf("%w: answer without a position: %s", errRefused, text)
		}
		return answer.Position, nil
	case response.StatusCode == http.StatusServiceUnavailable, response.StatusCode == http.StatusTooManyRequests:
		return 0, fmt.Errorf("status %d", response.StatusCode)
	default:
		// Any other status, including 500, is a wrong response to a valid event.
		return 0, fmt.Errorf("%w: status %d: %s", errRefused, response.StatusCode, text)
	}
}
