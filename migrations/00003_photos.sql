-- +goose Up
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Likes by a known user: one per user and photo, with the event that told of it.
CREATE TABLE posthorn.likes (
    photo_id text NOT NULL,
    user_id  text NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (photo_id, user_id)
);

-- A projection of the log up to the position of the reader 'photos'.
CREATE TABLE posthorn.photos (
    id    text   PRIMARY KEY,
    likes bigint NOT NULL CHECK (likes >= 0)
);

INSERT INTO posthorn.readers (name) VALUES ('relay'), ('photos');

-- +goose Down
DELETE FROM posthorn.readers WHERE name IN ('relay', 'photos');
DROP TABLE posthorn.photos, posthorn.likes;
