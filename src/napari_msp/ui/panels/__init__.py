"""Views: plain widgets that emit signals and know no viewer."""

import qtpy  # noqa: F401  pyqtgraph takes the Qt binding that is loaded already
