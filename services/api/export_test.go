package api

import "context"

// TakeRoom reserves all the memory for large responses until it is released.
func TakeRoom(a *API) (release func()) {
	if err := a.room.Acquire(context.Background(), responseRoom); err != nil {
		panic(err)
	}
	return func() { a.room.Release(responseRoom) }
}
