"""What a model is trained to do: one file a row of the comparison, chosen by `[objective] name`."""

from __future__ import annotations

from rwae_audio.objectives.base import Objective, ObjectiveConfig
from rwae_audio.objectives.c_dsvae import CDsvae
from rwae_audio.objectives.dbse import Dbse
from rwae_audio.objectives.dsvae import Dsvae
from rwae_audio.objectives.fhvae import Fhvae
from rwae_audio.objectives.rwae_gan import RwaeGan
from rwae_audio.objectives.rwae_mmd import RwaeMmd
from rwae_audio.objectives.rwae_plus import RwaePlus
from rwae_audio.objectives.rwae_smmd import RwaeSmmd
from rwae_audio.objectives.s3vae import S3vae

OBJECTIVES: dict[str, type[Objective]] = {
    "rwae-mmd": RwaeMmd,
    "rwae-smmd": RwaeSmmd,
    "rwae-gan": RwaeGan,
    "rwae-plus": RwaePlus,
    "dsvae": Dsvae,
    "fhvae": Fhvae,
    "s3vae": S3vae,
    "c-dsvae": CDsvae,
    "dbse": Dbse,
}

__all__ = ["OBJECTIVES", "Objective", "ObjectiveConfig"]
