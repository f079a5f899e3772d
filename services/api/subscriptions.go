package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"posthorn/events"
	"posthorn/events/strictjson"
	"posthorn/events/webhook"
	"posthorn/services/internal/operate"
	"posthorn/services/internal/retry"
	"posthorn/services/internal/subscription"
	"posthorn/services/internal/target"
)

// RetrySettings say when a failed delivery is retried.
type RetrySettings struct {
	Schedule []string `json:"schedule,omitzero" maxItems:"20" doc:"Delays before the retries, each from 1s to 24h; an empty list means no retries" example:"[\"5s\",\"30s\",\"2m\"]"`
}

// SubscriptionSettings are the settings that PUT replaces.
type SubscriptionSettings struct {
	URL         string         `json:"url" maxLength:"2048" doc:"URL that deliveries are posted to: absolute, http or https" example:"https://example.com/hook"`
	EventTypes  []string       `json:"eventTypes" minItems:"1" maxItems:"250" nullable:"false" doc:"Event types or patterns, at most 50 with wildcards: * matches one word, # any number of words. At most 16 words and two #. Runs of wildcards are stored in their shortest form" example:"[\"LIKED_PHOTO\",\"photo.*\"]"`
	Description string         `json:"description,omitempty" maxLength:"1024" doc:"Description for humans"`
	Status      string         `json:"status,omitempty" enum:"active,paused,disabled" doc:"active: delivered; paused: deliveries wait; disabled: events are not owed" example:"active"`
	Retry       *RetrySettings `json:"retry,omitempty" doc:"Retry schedule; the default if omitted"`
	Timeout     string         `json:"timeout,omitempty" doc:"How long one attempt may take, from 1s to 30s" example:"15s"`
	MaxInFlight int            `json:"maxInFlight,omitempty" minimum:"1" maximum:"256" doc:"Maximum number of deliveries in flight" example:"8"`
}

// NewSubscription is the body of POST.
type NewSubscription struct {
	SubscriptionSettings
	StartFrom Place  `json:"startFrom,omitempty" doc:"First event to deliver: now (the default) for events after the creation, or a position, a time or beginning to include past events, without a gap"`
	Secret    string `json:"secret,omitempty" doc:"Secret that signs the deliveries; generated if omitted" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
}

// Subscription is a subscription as the API shows it.
type Subscription struct {
	ID                  string        `json:"id" example:"sub_019a0000-0000-7000-8000-000000000000"`
	URL                 string        `json:"url"`
	EventTypes          []string      `json:"eventTypes" nullable:"false"`
	Description         string        `json:"description"`
	Status              string        `json:"status" enum:"active,paused,disabled"`
	Retry               RetrySettings `json:"retry"`
	Timeout             string        `json:"timeout"`
	MaxInFlight         int           `json:"maxInFlight"`
	Secret              string        `json:"secret,omitempty" doc:"Shown once: when the subscription is created or the secret rotated"`
	PreviousSecretUntil *time.Time    `json:"previousSecretUntil,omitempty" doc:"Until when the previous secret also signs"`
	Version             int           `json:"version" doc:"Incremented by every change; also the ETag"`
	CreatedAt           time.Time     `json:"createdAt"`
	UpdatedAt           time.Time     `json:"updatedAt"`
}

// SubscriptionList is one page.
type SubscriptionList struct {
	Items      []Subscription `json:"items" nullable:"false"`
	NextCursor string         `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page; absent on the last page"`
}

func show(s subscription.Subscription) Subscription {
	schedule := s.Schedule
	if schedule == nil {
		schedule = retry.Default()
	}
	v := Subscription{
		ID: string(s.ID), URL: s.URL, EventTypes: make([]string, len(s.EventTypes)), Description: s.Description,
		Status: string(s.Status), Retry: RetrySettings{Schedule: schedule.Strings()}, Timeout: duration(s.Timeout),
		MaxInFlight: s.MaxInFlight, Version: s.Version, CreatedAt: s.CreatedAt.UTC(), UpdatedAt: s.UpdatedAt.UTC(),
	}
	for i, p := range s.EventTypes {
		v.EventTypes[i] = string(p)
	}
	if !s.PreviousSecretUntil.IsZero() {
		until := s.PreviousSecretUntil.UTC()
		v.PreviousSecretUntil = &until
	}
	return v
}

// normalURL returns the stored form of the URL; Validate reports an invalid
// one.
func normalURL(raw string) string {
	if normal, err := target.NormalizeURL(raw); err == nil {
		return normal
	}
	return raw
}

func duration(d time.Duration) string { return retry.Schedule{d}.String() }

// apply puts the settings into a subscription; omitted ones get their default.
// It checks only their form; Validate checks the rest.
func (in SubscriptionSettings) apply(s *subscription.Subscription) error {
	var wrong subscription.InvalidError
	s.URL, s.Description = normalURL(in.URL), in.Description
	s.EventTypes = make([]events.Pattern, len(in.EventTypes))
	for i, t := range in.EventTypes {
		s.EventTypes[i] = events.Pattern(t) // Validate checks it
		if p, err := events.ParsePattern(t); err == nil {
			s.EventTypes[i] = p
		}
	}
	s.Status = subscription.Active
	if in.Status != "" {
		s.Status = subscription.Status(in.Status)
	}
	s.Schedule = nil
	if in.Retry != nil && in.Retry.Schedule != nil {
		schedule, err := retry.Parse(in.Retry.Schedule)
		if err != nil {
			wrong = append(wrong, subscription.FieldError{
				Field: "retry.schedule", Message: strings.TrimPrefix(err.Error(), retry.ErrInvalidSchedule.Error()+": "),
			})
		}
		s.Schedule = schedule
	}
	s.Timeout = subscription.DefaultTimeout
	if in.Timeout != "" {
		timeout, err := time.ParseDuration(in.Timeout)
		if err != nil {
			wrong = append(wrong, subscription.FieldError{Field: "timeout", Message: "is not a duration such as 15s"})
		} else {
			s.Timeout = timeout
		}
	}
	s.MaxInFlight = subscription.DefaultMaxInFlight
	if in.MaxInFlight != 0 {
		s.MaxInFlight = in.MaxInFlight
	}
	if err := s.Validate(); err != nil {
		var more subscription.InvalidError
		if !errors.As(err, &more) {
			return err
		}
		wrong = append(wrong, more...)
	}
	if wrong != nil {
		return wrong
	}
	return nil
}

type subscriptionOutput struct {
	Status   int
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     Subscription
}

func output(status int, s subscription.Subscription) *subscriptionOutput {
	out := &subscriptionOutput{Status: status, ETag: etag(s), Body: show(s)}
	if status == http.StatusCreated {
		out.Location = "/subscription/" + string(s.ID)
	}
	return out
}

func etag(s subscription.Subscription) string { return `"` + strconv.Itoa(s.Version) + `"` }

// SubscriptionParam is the subscription in a path.
type SubscriptionParam struct {
	ID string `path:"id" doc:"The subscription's id" example:"sub_019a0000-0000-7000-8000-000000000000"`
}

func (in SubscriptionParam) parse() (subscription.ID, error) {
	id, err := subscription.ParseID(in.ID)
	if err != nil {
		return "", problem(http.StatusNotFound, "There is no subscription with this id.")
	}
	return id, nil
}

// MatchParam makes a change conditional. Huma finds only exported parts.
type MatchParam struct {
	IfMatch string `header:"If-Match" doc:"Update only if the ETag still matches"`
}

// check fails if the client has seen a version other than the current one.
func (in MatchParam) check(s subscription.Subscription) error {
	if in.IfMatch == "" || in.IfMatch == "*" {
		return nil
	}
	for tag := range strings.SplitSeq(in.IfMatch, ",") {
		if strings.TrimSpace(tag) == etag(s) {
			return nil
		}
	}
	return problem(http.StatusPreconditionFailed, "The subscription has changed; its ETag is now "+etag(s)+".")
}

func (a *API) routeSubscriptions() {
	tags := []string{"Subscriptions"}
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: tags}
	}
	create := op("create-subscription", http.MethodPost, "/subscription", "Subscribe a URL to event types")
	create.DefaultStatus = http.StatusCreated
	register(a, create, a.createSubscription)
	register(a, op("list-subscriptions", http.MethodGet, "/subscription", "List subscriptions, oldest first"), a.listSubscriptions)
	register(a, op("get-subscription", http.MethodGet, "/subscription/{id}", "Show a subscription"), a.getSubscription)
	register(a, op("replace-subscription", http.MethodPut, "/subscription/{id}", "Replace a subscription's settings"), a.putSubscription)
	patch := op("change-subscription", http.MethodPatch, "/subscription/{id}", "Update settings of a subscription")
	patch.Description = "A JSON merge patch (RFC 7396): omitted settings stay, null sets the default."
	patch.SkipValidateBody = true // the merged settings are validated instead
	register(a, patch, a.patchSubscription)
	remove := op("delete-subscription", http.MethodDelete, "/subscription/{id}", "Delete a subscription and cancel its open deliveries")
	remove.DefaultStatus = http.StatusNoContent
	register(a, remove, a.deleteSubscription)
	register(a, op("pause-subscription", http.MethodPost, "/subscription/{id}/pause", "Pause deliveries; they wait and nothing is lost"),
		a.setStatus(subscription.Paused))
	register(a, op("resume-subscription", http.MethodPost, "/subscription/{id}/resume", "Resume deliveries"),
		a.setStatus(subscription.Active))
	test := op("test-subscription", http.MethodPost, "/subscription/{id}/test", "Send a test event to this subscription alone")
	test.DefaultStatus = http.StatusAccepted
	register(a, test, a.testSubscription)
	register(a, op("rotate-secret", http.MethodPost, "/subscription/{id}/rotate-secret",
		"Set a new signing secret; the previous one also signs for 24 hours"), a.rotateSecret)
	register(a, op("list-attempts", http.MethodGet, "/subscription/{id}/attempts", "List the attempts of a subscription's deliveries, latest first"),
		a.listAttempts)
	a.documentPatch()
}

// documentPatch describes the body of PATCH, which huma sees as bytes.
func (a *API) documentPatch() {
	registry := a.huma.OpenAPI().Components.Schemas
	settings := *registry.Map()["SubscriptionSettings"]
	settings.Required = nil
	registry.Map()["SubscriptionPatch"] = &settings
	ref := &huma.Schema{Ref: "#/components/schemas/SubscriptionPatch"}
	for _, path := range []string{"/subscription/{id}", "/subscriptions/{id}"} {
		a.huma.OpenAPI().Paths[path].Patch.RequestBody = &huma.RequestBody{
			Required: true,
			Content: map[string]*huma.MediaType{
				"application/merge-patch+json": {Schema: ref},
				"application/json":             {Schema: ref},
			},
		}
	}
}

func (a *API) createSubscription(ctx context.Context, in *struct{ Body NewSubscription }) (*subscriptionOutput, error) {
	var s subscription.Subscription
	var wrong subscription.InvalidError
	if err := in.Body.apply(&s); err != nil && !errors.As(err, &wrong) {
		return nil, err
	}
	from := in.Body.StartFrom.place("startFrom", &wrong)
	if from.Time.After(a.cfg.Now()) {
		wrong = append(wrong, subscription.FieldError{Field: "startFrom", Message: "is in the future"})
	}
	secret, err := newSecret(in.Body.Secret)
	if err != nil {
		wrong = append(wrong, subscription.FieldError{Field: "secret", Message: err.Error()})
	}
	if wrong != nil {
		return nil, wrong
	}
	s.Secret = secret
	stored, err := a.cfg.Operations.Subscribe(ctx, actor(ctx), s, from)
	if err != nil {
		return nil, fmt.Errorf("create subscription: %w", err)
	}
	out := output(http.StatusCreated, stored)
	out.Body.Secret = secret.Reveal()
	return out, nil
}

// newSecret returns the given secret, or a new one.
func newSecret(given string) (webhook.Secret, error) {
	if given == "" {
		return webhook.NewSecret(), nil
	}
	secret, err := webhook.ParseSecret(given)
	if err != nil {
		return webhook.Secret{}, problem(http.StatusUnprocessableEntity, `must be "whsec_" and 24 to 64 bytes in base64`)
	}
	return secret, nil
}

type listSubscriptionsInput struct {
	EventType string `query:"eventType" maxLength:"128" doc:"Only subscriptions that match this event type or have exactly this pattern"`
	URL       string `query:"url" maxLength:"2048" doc:"Only subscriptions with this URL"`
	Status    string `query:"status" enum:"active,paused,disabled" doc:"Only those with this status"`
	PageParams
}

// PageParams are the parameters of every list.
type PageParams struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"Maximum number of items; a page also ends at about one megabyte"`
	Cursor string `query:"cursor" doc:"Start of the page: nextCursor of the previous page"`
}

func (a *API) listSubscriptions(ctx context.Context, in *listSubscriptionsInput) (*struct{ Body SubscriptionList }, error) {
	filter := subscription.Filter{
		EventType: in.EventType, URL: normalURL(in.URL), Status: subscription.Status(in.Status), Limit: in.Limit,
	}
	if in.Cursor != "" {
		after, err := openCursor("subscriptions", in.Cursor)
		if err != nil {
			return nil, err
		}
		if filter.After, err = subscription.ParseID(after); err != nil {
			return nil, badCursor()
		}
	}
	if err := a.reserve(ctx); err != nil {
		return nil, err
	}
	page, err := a.cfg.Operations.Subscriptions(ctx, actor(ctx), filter)
	if err != nil {
		return nil, fmt.Errorf("list subscriptions: %w", err)
	}
	out := &struct{ Body SubscriptionList }{}
	out.Body.Items, out.Body.NextCursor = showPage(page, "subscriptions", show, func(s subscription.Subscription) string {
		return string(s.ID)
	})
	return out, nil
}

func (a *API) getSubscription(ctx context.Context, in *SubscriptionParam) (*subscriptionOutput, error) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	s, err := a.cfg.Operations.Subscription(ctx, actor(ctx), id)
	if err != nil {
		return nil, fmt.Errorf("read subscription: %w", err)
	}
	return output(http.StatusOK, s), nil
}

// change is the part that PUT, PATCH and the actions on a subscription share.
func (a *API) change(ctx context.Context, given SubscriptionParam, match MatchParam, change func(*subscription.Subscription) error) (*subscriptionOutput, error) {
	id, err := given.parse()
	if err != nil {
		return nil, err
	}
	s, unopened, err := a.cfg.Operations.ChangeSubscription(ctx, actor(ctx), id, func(s *subscription.Subscription) error {
		if err := match.check(*s); err != nil {
			return err
		}
		return change(s)
	})
	if unopened != nil {
		a.cfg.Logger.WarnContext(ctx, "secret cannot be opened: see posthorn secrets status", slog.Any("error", unopened))
	}
	if err != nil {
		return nil, fmt.Errorf("change subscription: %w", err)
	}
	return output(http.StatusOK, s), nil
}

func (a *API) putSubscription(ctx context.Context, in *struct {
	SubscriptionParam
	MatchParam
	Body SubscriptionSettings
},
) (*subscriptionOutput, error) {
	return a.change(ctx, in.SubscriptionParam, in.MatchParam, in.Body.apply)
}

func (a *API) patchSubscription(ctx context.Context, in *struct {
	SubscriptionParam
	MatchParam
	RawBody []byte `contentType:"application/merge-patch+json"`
},
) (*subscriptionOutput, error) {
	if firstByte(in.RawBody) != '{' {
		return nil, malformed(&strictjson.Error{Message: "is not a JSON object"})
	}
	return a.change(ctx, in.SubscriptionParam, in.MatchParam, func(s *subscription.Subscription) error {
		settings := SubscriptionSettings{
			URL: s.URL, Description: s.Description, Status: string(s.Status), Timeout: s.Timeout.String(), MaxInFlight: s.MaxInFlight,
		}
		for _, p := range s.EventTypes {
			settings.EventTypes = append(settings.EventTypes, string(p))
		}
		if s.Schedule != nil {
			settings.Retry = &RetrySettings{Schedule: s.Schedule.Strings()}
		}
		current, err := json.Marshal(settings)
		if err != nil {
			return fmt.Errorf("encode settings: %w", err)
		}
		merged, err := mergePatch(current, in.RawBody)
		if err != nil {
			return fmt.Errorf("merge settings: %w", err)
		}
		if settings, err = a.decodeSettings(merged); err != nil {
			return err
		}
		return settings.apply(s)
	})
}

func (a *API) deleteSubscription(ctx context.Context, in *struct {
	SubscriptionParam
	MatchParam
},
) (*struct{}, error) {
	_, err := a.change(ctx, in.SubscriptionParam, in.MatchParam, func(s *subscription.Subscription) error {
		s.Status = subscription.Deleted
		return nil
	})
	return nil, err
}

func (a *API) setStatus(status subscription.Status) func(context.Context, *SubscriptionParam) (*subscriptionOutput, error) {
	return func(ctx context.Context, in *SubscriptionParam) (*subscriptionOutput, error) {
		return a.change(ctx, *in, MatchParam{}, operate.SetStatus(status))
	}
}

type rotateBody struct {
	Secret string `json:"secret,omitempty" doc:"The new secret; generated if omitted"`
}

func (a *API) rotateSecret(ctx context.Context, in *struct {
	SubscriptionParam
	MatchParam
	Body *rotateBody
},
) (*subscriptionOutput, error) {
	given := ""
	if in.Body != nil {
		given = in.Body.Secret
	}
	secret, err := newSecret(given)
	if err != nil {
		return nil, subscription.InvalidError{{Field: "secret", Message: err.Error()}}
	}
	out, err := a.change(ctx, in.SubscriptionParam, in.MatchParam, a.cfg.Operations.RotateSecret(secret, a.cfg.Now()))
	if err != nil {
		return nil, err
	}
	out.Body.Secret = secret.Reveal()
	return out, nil
}

// testBody is the event of a test.
type testBody struct {
	Type string          `json:"type,omitempty" maxLength:"128" doc:"Event type; it need not match the subscription's event types" example:"posthorn.test"`
	Data json.RawMessage `json:"data,omitempty" doc:"Its data" example:"{\"test\":true}"`
}

// AcceptedEvent is an event that is in the log.
type AcceptedEvent struct {
	ID         string    `json:"id" doc:"Its id, which is the webhook-id of its deliveries"`
	Type       string    `json:"type"`
	Subject    string    `json:"subject,omitempty"`
	Position   int64     `json:"position" doc:"Its place in the log"`
	OccurredAt time.Time `json:"occurredAt"`
	RecordedAt time.Time `json:"recordedAt"`
	Duplicate  bool      `json:"duplicate" doc:"The event was already in the log and was not stored again"`
}

func (a *API) testSubscription(ctx context.Context, in *struct {
	SubscriptionParam
	Body *testBody
},
) (*struct {
	Location string `header:"Location"`
	Body     AcceptedEvent
}, error,
) {
	id, err := in.parse()
	if err != nil {
		return nil, err
	}
	var e events.Event
	if in.Body != nil {
		e.Type, e.Data = in.Body.Type, in.Body.Data
	}
	e, err = a.cfg.Operations.SendTest(ctx, actor(ctx), id, e)
	if err != nil {
		return nil, fmt.Errorf("append test event: %w", err)
	}
	out := &struct {
		Location string `header:"Location"`
		Body     AcceptedEvent
	}{Location: "/events/" + e.ID}
	out.Body = AcceptedEvent{
		ID: e.ID, Type: e.Type, Position: e.Position, OccurredAt: e.OccurredAt.UTC(), RecordedAt: e.RecordedAt.UTC(),
	}
	return out, nil
}
