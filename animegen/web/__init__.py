"""The page of ``animegen web``: photos, videos and in-betweens in a browser on this machine."""
