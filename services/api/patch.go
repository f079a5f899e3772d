package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// mergePatch applies a JSON merge patch (RFC 7396) to a JSON document.
func mergePatch(target, patch []byte) ([]byte, error) {
	var into, from any
	for _, it := range []struct {
		raw  []byte
		into *any
	}{{target, &into}, {patch, &from}} {
		d := json.NewDecoder(bytes.NewReader(it.raw))
		d.UseNumber()
		if err := d.Decode(it.into); err != nil {
			return nil, fmt.Errorf("decode merge patch: %w", err)
		}
	}
	merged, err := json.Marshal(merge(into, from))
	if err != nil {
		return nil, fmt.Errorf("encode merge patch: %w", err)
	}
	return merged, nil
}

func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range changes {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = merge(object[name], value)
		}
	}
	return object
}

// decodeSettings validates a document against the schema of the settings, as
// huma does with a body.
func (a *API) decodeSettings(raw []byte) (SubscriptionSettings, error) {
	var (
		document any
		settings SubscriptionSettings
		result   huma.ValidateResult
	)
	if err := json.Unmarshal(raw, &document); err != nil {
		return settings, fmt.Errorf("decode settings: %w", err)
	}
	registry := a.huma.OpenAPI().Components.Schemas
	path := huma.NewPathBuffer([]byte("body"), len("body"))
	huma.Validate(registry, registry.Map()["SubscriptionSettings"], path, huma.ModeWriteToServer, document, &result)
	if len(result.Errors) > 0 {
		return settings, humaProblem(http.StatusUnprocessableEntity, "", result.Errors...)
	}
	if err := json.Unmarshal(raw, &settings); err != nil {
		return settings, invalid(inBody("", "is not a valid settings object"))
	}
	return settings, nil
}
