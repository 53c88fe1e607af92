"""The public names and where they come from: `__init__.py` reads this file, and so do type checkers."""

from . import evaluation as evaluation
from . import integrations as integrations
from . import metrics as metrics
from . import operators as operators
from . import priors as priors
from . import three_d as three_d
from .api.burst import burst as burst
from .api.deblur import deblur as deblur
from .api.restore import restore as restore
from .errors import UserError as UserError
from .operators.blur import HQS as HQS
from .operators.blur import Blur as Blur
from .output.result import Restored as Restored
from .output.result import Result as Result
from .pipeline import LatentDEMPipeline as LatentDEMPipeline
from .pipeline import LatentDEMPipelineOutput as LatentDEMPipelineOutput
from .priors.base import LatentPrior as LatentPrior
from .priors.diffusers_prior import DiffusersPrior as DiffusersPrior
from .priors.embedded import EmbeddedPrior as EmbeddedPrior
from .priors.kernel_denoiser import load_kernel_denoiser as load_kernel_denoiser
from .restoration.settings import Settings as Settings
from .search.blind import BlindSearch as BlindSearch
from .search.config import PAPER as PAPER
from .search.config import SearchConfig as SearchConfig
from .search.config import Start as Start
from .solver.data_weight import Annealed as Annealed
from .solver.data_weight import MaximumLikelihood as MaximumLikelihood
from .solver.data_weight import ModellingError as ModellingError
from .solver.data_weight import MostCautious as MostCautious
from .solver.e_step import Posterior as Posterior
from .solver.e_step import Proximal as Proximal
from .solver.latentdem import LatentDEM as LatentDEM
from .solver.passes import Pass as Pass
from .solver.schedules import Annealing as Annealing
from .solver.schedules import Skip as Skip
from .solver.state import State as State
from .solver.state import TraceStep as TraceStep

__version__: str
