"""Uses the client that openapi-python-client generates from the API description, against a service with tokens."""

import datetime
import sys

from client import AuthenticatedClient, Client, models
from client.api.messages import post_messages
from client.api.reports import get_report, get_stats
from client.api.rockets import get_rocket, list_rockets
from client.api.service import get_liveness

base_url, write_token, read_token = sys.argv[1:]
writer = AuthenticatedClient(base_url=base_url, token=write_token)
reader = AuthenticatedClient(base_url=base_url, token=read_token)

sent = datetime.datetime(2022, 2, 2, 19, 39, 5, 863370, tzinfo=datetime.timezone.utc)
message = models.LaunchedMessage(
    metadata=models.MetadataLaunchedType(
        channel="one/of:python",
        message_number=1,
        message_time=sent,
        message_type=models.MetadataLaunchedTypeMessageType.ROCKETLAUNCHED,
    ),
    message=models.Launched(type_="Falcon-9", launch_speed=500, mission="ARTEMIS"),
)
posted = post_messages.sync_detailed(client=writer, body=message)
assert posted.status_code == 204, posted

page = list_rockets.sync(client=reader, sort=models.Sort.CHANNEL, status=models.Status.LAUNCHED)
assert isinstance(page, models.Page), page
assert "one/of:python" in [rocket.channel for rocket in page.rockets], page

rocket = get_rocket.sync("one/of:python", client=reader, view=models.Views.EXACT)
assert isinstance(rocket, models.Rocket), rocket
assert (rocket.speed, rocket.latest_update, rocket.messages.gaps) == (500, sent, []), rocket

both = get_rocket.sync("one/of:python", client=reader, view=models.Views.BOTH)
assert isinstance(both, models.RocketInBothViews), both
assert (both.exact.speed, both.best_effort.status) == (500, models.Status.LAUNCHED), both

stats = get_stats.sync(client=reader)
assert isinstance(stats, models.FleetTotals) and stats.launched >= 1, stats

report = get_report.sync(models.ReportName.MISSIONS, client=reader)
assert isinstance(report, models.MissionsReport), report
assert [row.max_speed for row in report.rows if row.mission == "ARTEMIS"] == [500], report

assert isinstance(get_liveness.sync(client=Client(base_url=base_url)), models.Health)
refused = get_stats.sync(client=Client(base_url=base_url))
assert isinstance(refused, models.Problem) and refused.status == 401, refused
