package api

import "context"

// TakeRoom takes all the room that large answers have, until it is given back.
func TakeRoom(a *API) (release func()) {
	if err := a.room.Acquire(context.Background(), responseRoom); err != nil {
		panic(err)
	}
	return func() { a.room.Release(responseRoom) }
}
