"""Self-contained HTML pages: one file with style, script, data and small pictures, which needs no network access."""

import math
import secrets
from functools import cache
from typing import Any

import jinja2


def render_page(template_name: str, **data: Any) -> str:
    """Fill a template of `report/templates`; most extend `base.html`, which documents its blocks.

    Values in `{{ }}` are escaped. What a script needs goes into the page as JSON, with `{{ name | tojson }}` in a
    `<script type="application/json">`: `tojson` escapes `<`, `>`, `&` and `'`, and refuses NaN and infinity.

    Args:
        template_name: such as `spots.html`.
        data: the variables of the template; a missing one is an error.

    Returns:
        The page. Its content security policy lets it load nothing but videos beside it, and run no script but its own.

    Raises:
        jinja2.UndefinedError: the template names what `data` lacks.
        ValueError: a number is not representable in JSON.
    """
    return _environment().get_template(template_name).render(data, nonce=secrets.token_urlsafe(16))


def clock(time_s: float) -> str:
    """Return a time as `minutes:seconds`, rounded to tenths, such as `0:34.6`; `clock` in `spots.js` rounds in the
    same way."""
    minutes, tenths = divmod(math.floor(10 * time_s + 0.5), 600)
    return f"{minutes}:{tenths // 10:02d}.{tenths % 10}"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment
