// Package matching has event type patterns as SQL has to have them: as regular
// expressions over a type with a dot before it, with the verdict of
// events.Pattern.Match.
package matching
