"""The announcement's story at nano scale, on the cluster that RAY_API_SERVER_ADDRESS names: `make reproduce-nano`.

Teacher, three progressive stages under three teachers, student; a table beside the announcement's, and a gallery.
"""

from ssd1b.command import main
from ssd1b.demo.reproduction import reproduce
from ssd1b.recipes import demo

RECIPES = {"nano": demo.reproduce}

if __name__ == "__main__":
    main(RECIPES, reproduce)
