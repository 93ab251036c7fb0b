#!/bin/sh
# Django with pytest-django: on the clone itself, which has been migrated once; the
# server on the same clone; Django's own runner.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"
python pytest pytest_django django psycopg2
postgres

mkdir shop tests
: >shop/__init__.py
cat >settings.py <<'END'
import os
from urllib.parse import urlparse
url = urlparse(os.environ["DATABASE_URL"])
DATABASES = {"default": {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": url.hostname, "PORT": url.port, "USER": url.username,
    "NAME": url.path[1:],
    # The clone is made for this file alone: test on it as it is.
    "TEST": {"NAME": url.path[1:] if "PRUN_DB" in os.environ else None},
}}
SECRET_KEY = "x"
DEBUG = True
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
END
cat >shop/models.py <<'END'
from django.db import models
class Item(models.Model):
    name = models.CharField(max_length=20)
END
cat >shop/urls.py <<'END'
from django.http import HttpResponse
from django.urls import path
from .models import Item
def items(request):
    if request.GET:
        Item.objects.create(name=request.GET["add"])
    return HttpResponse(",".join(i.name for i in Item.objects.order_by("id")))
urlpatterns = [path("", items)]
END
cat >manage.py <<'END'
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
END
cat >seed.py <<'END'
import django
django.setup()
from shop.models import Item
Item.objects.all().delete()
Item.objects.create(name="template")
END
cat >pytest.ini <<'END'
[pytest]
DJANGO_SETTINGS_MODULE = settings
addopts = --reuse-db
pythonpath = .
END
for i in 1 2 3; do
	cat >tests/test_$i.py <<-END
	import os, urllib.request, pytest
	from shop.models import Item
	def get(query):
	    return urllib.request.urlopen(os.environ["PRUN_URL"] + "/" + query).read().decode()
	@pytest.mark.django_db
	def test_rolled_back():
	    assert Item.objects.get().name == "template"
	    Item.objects.create(name="gone")
	@pytest.mark.django_db(transaction=True, serialized_rollback=False)
	def test_server_sees_it():
	    assert get("?add=$i") == "template,$i"
	    assert Item.objects.count() == 2
	END
done
DATABASE_URL=$url python3 manage.py makemigrations shop >made 2>&1
cat >prun.conf <<END
db = $url
setup = python3 manage.py migrate && DJANGO_SETTINGS_MODULE=settings python3 seed.py
server = python3 manage.py runserver --noreload \$PRUN_PORT
END
run -j2 tests
is 'pytest-django tests on the clone of its file, beside the server' "$status" 0
has 'all tests ran' out '^tests/test_3.py +PASS +2 '
is 'nothing is left behind' "$(databases)" "$name"
[ "$status" = 0 ] || cat out prun-*/0*/test.log prun-*/0*/server.log

# Django's own runner creates and drops a database beside the clone.
mkdir -p shop/tests
: >shop/tests/__init__.py
for i in 1 2; do
	cat >shop/tests/test_$i.py <<-END
	from django.test import LiveServerTestCase
	from shop.models import Item
	class Test(LiveServerTestCase):
	    def test_empty(self):
	        self.assertEqual(Item.objects.count(), 0)
	        Item.objects.create(name="x")
	END
done
sed -i.bak '/"TEST"/d' settings.py
cat >prun.conf <<END
db = $url
files = shop/tests
test = name=\${PRUN_TEST%.py} && python3 manage.py test --noinput
  "\$(echo "\$name" | tr / .)" "\$@"
END
run -j2
is "Django's own runner makes test_CLONE for each file" "$status" 0
is 'and drops it' "$(databases)" "$name"
finish
