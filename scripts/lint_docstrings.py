"""Check docstrings as `numpydoc lint` does, in half the time: it reads files anew for each."""

import ast
import sys
from functools import cache
from typing import Any

from numpydoc import cli, validate
from numpydoc.hooks import validate_docstrings

validator: Any = validate_docstrings.AstValidator
validator.method_source = property(lambda self: ast.unparse(self.node))
comments: Any = cache(validate.extract_ignore_validation_comments)
validate.extract_ignore_validation_comments = comments
sys.exit(cli.main(["lint", *sys.argv[1:]]))
